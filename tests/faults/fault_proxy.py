"""An HTTP proxy in front of an S3 service that misbehaves on purpose, on loopback only.

    python -m tests.faults.fault_proxy http://127.0.0.1:UPSTREAM MODE WHICH SEED

Prints its own endpoint. ``MODE`` is what happens to a share ``WHICH`` of the requests, drawn from ``SEED``; of
several joined by ``+`` each fault is one:

    busy         503 SlowDown instead of an answer
    reset        the connection is reset instead of an answer
    lost-answer  the request is carried out, then the connection is reset
    hang         no answer for longer than the client waits
    half-body    half of the body, then the connection is closed
    bad-bit      one bit of the body is wrong, and the true checksum comes with it, as from AWS

or from some request on:

    credentials  every request after the first WHICH (a number) is refused as by a service that revoked the key

or to every request whose method and path match the regular expression WHICH, the first of which prints "stalled",
until a line comes in:

    stall        it does not reach the service, and gets no answer
    stall-after  it is carried out, but gets no answer
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import sys
import zlib

import aiohttp
from aiohttp import web
from yarl import URL

HANG_S = 30.0
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"}
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_NO_KEY = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist in our records.</Message></Error>"


class FaultProxy:
    """Passes requests on, or not."""

    def __init__(self, upstream: str, mode: str, which: str, seed: int) -> None:
        self._upstream = upstream
        self._mode = mode
        self._share = 0.0 if mode.startswith("stall") else float(which)
        self._pattern = re.compile(which) if mode.startswith("stall") else None
        self._has_stalled = False
        self.go_on = asyncio.Event()
        self._random = random.Random(seed)
        self._num_requests = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read()
        self._num_requests += 1
        if self._mode == "credentials":
            if self._num_requests > self._share:
                return web.Response(status=403, body=_NO_KEY, content_type="application/xml")
            return await self._pass_on(request, body)
        if self._pattern and not self.go_on.is_set() and self._pattern.search(f"{request.method} {request.path}"):
            await self._stall(request, body)
        if self._random.random() >= self._share:
            return await self._pass_on(request, body)
        fault = self._random.choice(self._mode.split("+"))
        if fault == "busy":
            return web.Response(status=503, body=_SLOW_DOWN, content_type="application/xml")
        if fault == "hang":
            await asyncio.sleep(HANG_S)
        if fault == "half-body":
            return await self._pass_on(request, body, half=True)
        if fault == "bad-bit":
            return await self._pass_on(request, body, bad_bit=True)
        if fault == "lost-answer":
            await self._pass_on(request, body, answer=False)
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    async def _stall(self, request: web.Request, body: bytes) -> None:
        if self._mode == "stall-after":
            await self._pass_on(request, body, answer=False)
        if not self._has_stalled:
            print("stalled", flush=True)
        self._has_stalled = True
        await self.go_on.wait()

    async def _pass_on(
        self, request: web.Request, body: bytes, *, half: bool = False, answer: bool = True, bad_bit: bool = False
    ) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, url, headers=headers, data=body, skip_auto_headers=["User-Agent", "Content-Type"]
            ) as upstream,
        ):
            data = await upstream.read()
            kept = {name: value for name, value in upstream.headers.items() if name.lower() not in _HOP}
        if not answer:
            return web.Response()
        if bad_bit and request.method == "GET" and upstream.status == 200 and data:
            kept["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
            data = data[:-1] + bytes([data[-1] ^ 1])
        if not half or len(data) < 2:
            if request.method == "HEAD" and "Content-Length" in upstream.headers:
                kept["Content-Length"] = upstream.headers["Content-Length"]
            return web.Response(status=upstream.status, headers=kept, body=data)
        response = web.StreamResponse(status=upstream.status, headers={**kept, "Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.close()
        return response


async def serve(upstream: str, mode: str, which: str, seed: int) -> None:
    """Serve until standard input ends, as it does when the test dies."""
    application = web.Application(client_max_size=2**30)
    proxy = FaultProxy(upstream, mode, which, seed)
    ended = asyncio.Event()

    def obey() -> None:
        if os.read(sys.stdin.fileno(), 4096):
            proxy.go_on.set()
        else:
            ended.set()

    asyncio.get_running_loop().add_reader(sys.stdin, obey)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
