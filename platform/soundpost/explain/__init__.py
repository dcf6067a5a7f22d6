"""What differs between two recordings, in words that are checked against them."""
