"""Errors in OpenAI's form."""

from typing import Any

from starlette.responses import JSONResponse

from alignment.serving.net import one_line

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is refused."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code

    def body(self) -> dict[str, Any]:
        """Return the response's body."""
        return error_body(str(self), self.status, param=self.param, code=self.code)


def error_body(message: str, status: int, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error response."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": one_line(message), "type": kind, "param": param, "code": code}}


def error_response(
    message: str, status: int, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> JSONResponse:
    """Return an error response."""
    return JSONResponse(error_body(message, status, param=param, code=code), status, headers)
