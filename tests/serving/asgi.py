"""A request made by hand, to see how much of its body an app reads."""

import anyio


def post(app, path, **headers):
    """Send an endless body of 100 bytes at a time; gives the status, and how many pieces were read."""
    read, sent = [], []

    async def receive():
        read.append(1)
        assert len(read) < 1000
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(message):
        sent.append(message)

    fields = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": fields, "scheme": "http"}
    anyio.run(app, scope, receive, send)
    return sent[0]["status"], len(read)
