"""What the gates of endpoint and page do with what a server hands an application."""

from starlette.types import Message, Receive, Scope


def route_path(scope: Scope) -> str:
    """The path that routes are found by: without that below which the application is mounted, empty for it alone."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path


def replayed(body: bytes, receive: Receive) -> Receive:
    """`body` as one message, then what `receive` still says: that the client is gone."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
