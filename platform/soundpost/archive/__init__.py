"""Archive: recordings go in, moments come out."""
