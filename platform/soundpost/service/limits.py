"""A limit to bodies that are read into memory, refused with problem details like all else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from soundpost.errors import MalformedRequestError, UploadTooLargeError

JSON_BYTES = 64 * 1024

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class SmallRequest(Request):
    """A request whose body is read only as far as JSON_BYTES."""

    async def body(self) -> bytes:
        """Return the body. Raises UploadTooLargeError and MalformedRequestError."""
        if not hasattr(self, "_small_body"):
            self._small_body = await self._read()
        return self._small_body

    async def _read(self) -> bytes:
        body = bytearray()
        try:
            async for chunk in self.stream():
                body += chunk
                if len(body) > JSON_BYTES:
                    raise UploadTooLargeError(f"{len(body)} bytes", f"the limit is {JSON_BYTES}")
        except ClientDisconnect as error:
            raise MalformedRequestError(None, "the sender hung up") from error
        return bytes(body)


class SmallBodyRoute(APIRoute):
    """A route that takes JSON."""

    def get_route_handler(self) -> Handler:
        """Return the usual handler, with its request's body limited; errors are answered above."""
        handle = super().get_route_handler()

        async def handle_small(request: Request) -> Response:
            small = SmallRequest(request.scope, request.receive)
            # FastAPI answers errors of reading with a status only; read here, they keep their class.
            await small.body()
            return await handle(small)

        return handle_small
