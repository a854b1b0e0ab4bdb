"""What hostile clients send: the cases of `test_intrusion`, each with a name that says what is wrong with it."""

import base64
import struct

TOPIC = f"coco_1_{'0' * 32}.zip"
CLOSED = 0


def request(method, path, *headers, body=b"", version="HTTP/1.1", host="Host: 127.0.0.1"):
    """A request as bytes; its connection is closed after the answer."""
    if isinstance(path, str):
        path = path.encode()
    lines = [f"{method} ".encode() + path + f" {version}".encode(), host.encode(), b"Connection: close"]
    lines += [header if isinstance(header, bytes) else header.encode() for header in headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(line for line in lines if line) + b"\r\n\r\n" + body


def asking(config, more=""):
    return b'{"dataset_name": "tones", "handler_version": "1.0", "dataset_config": %s%s}' % (config, more.encode())


def frame(opcode, payload=b"", *, final=True, reserved=0, masked=True, length=None):
    """A WebSocket frame (RFC 6455, 5.2); ``length`` is what it claims."""
    length = len(payload) if length is None else length
    first = (0x80 if final else 0) | reserved << 4 | opcode
    if length < 126:
        size = bytes([length])
    elif length <= 0xFFFF:
        size = b"\x7e" + struct.pack("!H", length)
    else:
        size = b"\x7f" + struct.pack("!Q", length)
    size = bytes([size[0] | (0x80 if masked else 0)]) + size[1:]
    return bytes([first]) + size + (bytes(4) if masked else b"") + payload


NAMES = [
    "..",
    "../../etc/passwd",
    "../server.db",
    "..%2f..%2fserver.db",
    "%2e%2e%2fserver.db",
    "%252e%252e%252fserver.db",
    "..%5c..%5cserver.db",
    "..\\..\\server.db",
    "%00",
    "server.db%00.zip",
    f"{TOPIC}%00",
    f"{TOPIC}%0a",
    f"{TOPIC}%2f..%2f..%2fserver.db",
    "%c0%ae%c0%ae%c0%afserver.db",
    "%ff%fe",
    "%ef%bc%8e%ef%bc%8e%ef%bc%8fserver.db",
    "%e2%80%aegnp.exe",
    "%ed%a0%80",
    "--help",
    "--upload-pack=id",
    "-o%20x",
    ";id",
    "$(id)",
    "%7c%20id",
    "%0d%0aSet-Cookie:%20a=b",
    "//etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "http:%2f%2f127.0.0.1%2f",
    "%zz",
    "%",
    "*",
    "~root",
    "{id}",
    "x" * 3000,
    "%41" * 1000,
]
PLACES = [
    "/{}",
    "/api/v1/{}",
    "/api/v1/datasets/{}",
    "/api/v1/datasets/{}/archive",
    "/api/v1/datasets/{}/manifest",
    f"/api/v1/datasets/{TOPIC}/shards/{{}}",
    "/api/v1/datasets/{}/shards/{}",
    "/api/v1/handlers/{}/1.0",
    "/api/v1/handlers/tones/{}",
    "/api/v1/notifications?topic={}",
    "/api/v1/datasets?name={}",
]
VERSIONS = [
    "git+https://example.org/x.git",
    "git+http://127.0.0.1:{port}/x.git",
    "http://127.0.0.1:{port}/x.whl",
    "@file:///etc",
    "@http://127.0.0.1:{port}/x",
    "file:///etc/passwd",
    "--upload-pack=touch {folder}/owned",
    "--index-url=http://127.0.0.1:{port}/",
    "-e.",
    "../../..",
    "..",
    "/etc",
    "1.0/../../x",
    "1.0;touch {folder}/owned",
    "1.0 --extra-index-url http://127.0.0.1:{port}/",
    "1.0\n--index-url=http://127.0.0.1:{port}/",
    "1.0\n",
    "1.0\u0000",
    "$(touch {folder}/owned)",
    "`touch {folder}/owned`",
    ">=0",
    "*",
    "1.0#subdirectory=../..",
    "1.0@127.0.0.1:{port}",
    "HEAD~1",
    "refs/heads/main",
    "main:evil",
    "１.０",
    "v\u202e1",
    "",
    " ",
    "a" * 129,
    "ext::sh -c touch% {folder}/owned",
]
BODIES = {
    "empty": b"",
    "null": b"null",
    "a number": b"1",
    "a string": b'"x"',
    "not closed": b'{"dataset_name": "tones"',
    "two documents": asking(b"{}") * 2,
    "a byte order mark": b"\xef\xbb\xbf" + asking(b"{}"),
    "not UTF-8": asking(b'{"a": "\xff"}'),
    "half of a UTF-8 character": asking(b'{"a": "\xc3"}'),
    "a surrogate as UTF-8": asking(b'{"a": "\xed\xa0\x80"}'),
    "lone high surrogate": asking(b'{"a": "\\ud800"}'),
    "lone low surrogate": asking(b'{"a": "\\udc00"}'),
    "lone surrogate as key": asking(b'{"\\udfff": 1}'),
    "lone surrogate in a list": asking(b'{"a": ["\\ud83d"]}'),
    "lone surrogate as name": b'{"dataset_name": "\\ud800", "handler_version": "1.0"}',
    "lone surrogate as version": b'{"dataset_name": "tones", "handler_version": "\\ud800"}',
    "lone surrogate as member": asking(b"{}", ', "\\ud800": 1'),
    "NaN": asking(b'{"a": NaN}'),
    "Infinity": asking(b'{"a": Infinity}'),
    "-Infinity": asking(b'{"a": [-Infinity]}'),
    "a float too large": asking(b'{"a": 1e400}'),
    "a float of many digits": asking(b'{"a": 1%s.5}' % (b"0" * 5000)),
    "10**400": asking(b'{"a": 1%s}' % (b"0" * 400)),
    "-10**400": asking(b'{"a": -1%s}' % (b"0" * 400)),
    "10**100000": asking(b'{"a": 1%s}' % (b"0" * 100_000)),
    "2**53 + 1": asking(b'{"a": 9007199254740993}'),
    "depth 65": asking(b'{"a": %s1%s}' % (b"[" * 65, b"]" * 65)),
    "depth 1,000 of objects": asking(b'{"a":' * 1000 + b"1" + b"}" * 1000),
    "depth 100,000": asking(b'{"a": %s%s}' % (b"[" * 100_000, b"]" * 100_000)),
    "depth 400,000 not closed": asking(b'{"a": %s' % (b"[" * 400_000)),
    "depth beside the config": asking(b"{}", f', "more": {"[" * 90_000}{"]" * 90_000}'),
    "a key twice": asking(b'{"a": 1, "a": 2}'),
    "a key twice, once escaped": asking(b'{"a": 1, "\\u0061": 2}'),
    "a key twice, deep": asking(b'{"a": [{"b": {"c": 1, "c": 1}}]}'),
    "a member twice": asking(b"{}", ', "dataset_name": "coco"'),
    "an unknown member": asking(b"{}", ', "source": "git+http://127.0.0.1/x"'),
    "a config that is a list": asking(b"[]"),
    "a config that is text": asking(b'"{}"'),
    "a config that is null": asking(b"null"),
    "a version that is a list": b'{"dataset_name": "tones", "handler_version": ["1.0"]}',
    "a version that is a number": b'{"dataset_name": "tones", "handler_version": 1.0}',
    "a name that is an object": b'{"dataset_name": {"$ne": null}, "handler_version": "1.0"}',
    "an md5 that is none": asking(b"{}", ', "config_md5": "../../x"'),
    "an md5 that is a number": asking(b"{}", ', "config_md5": 1'),
    "a form": b"dataset_name=tones&handler_version=1.0",
    "XML": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "binary": bytes(range(256)) * 64,
}
GOOD = request("GET", "/api/v1/handlers")
HEADS = {
    "a line too long": request("GET", "/" + "x" * 100_000),
    "a query too long": request("GET", "/api/v1/datasets?name=" + "x" * 100_000),
    "a header too long": request("GET", "/healthz", "X-Long: " + "x" * 100_000),
    "a header name too long": request("GET", "/healthz", "X" * 100_000 + ": 1"),
    "a thousand headers": request("GET", "/healthz", *(f"X-{number}: 1" for number in range(1000))),
    "no colon": request("GET", "/healthz", "nonsense"),
    "a space before the colon": request("GET", "/healthz", "X-A : 1"),
    "a folded header": request("GET", "/healthz", "X-A: 1\r\n 2"),
    "a NUL in a header": request("GET", "/healthz", b"X-A: a\x00b"),
    "a bare CR in a header": request("GET", "/healthz", b"X-A: a\rb"),
    "two hosts": request("GET", "/api/v1/handlers", "Host: elsewhere.example"),
    "no host": request("GET", "/api/v1/handlers", host=""),
    "a foreign host": request("GET", "/api/v1/handlers", host="Host: evil.example"),
    "a host with a path": request("GET", "/api/v1/handlers", host="Host: evil.example/../x"),
    "a host of markup": request("GET", "/api/v1/handlers", host="Host: <script>"),
    "two lengths": request("POST", "/api/v1/datasets", "Content-Length: 3", "Content-Length: 4") + b"{}  ",
    "a negative length": request("POST", "/api/v1/datasets", "Content-Length: -1"),
    "a signed length": request("POST", "/api/v1/datasets", "Content-Length: +2") + b"{}",
    "a length in hex": request("POST", "/api/v1/datasets", "Content-Length: 0x2") + b"{}",
    "a length of 10**30": request("POST", "/api/v1/datasets", "Content-Length: 1" + "0" * 30),
    "length and chunks": request(
        "POST", "/api/v1/datasets", "Transfer-Encoding: chunked", body=b"0\r\n\r\nGET / HTTP/1.1"
    ),
    "an unknown transfer coding": request("POST", "/api/v1/datasets", "Transfer-Encoding: cow") + b"0\r\n\r\n",
    "chunked twice": request("POST", "/api/v1/datasets", "Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "a chunk of no size": request("POST", "/api/v1/datasets", "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk of 2**80": request("POST", "/api/v1/datasets", "Transfer-Encoding: chunked") + b"1" + b"0" * 20 + b"\r\n",
    "a chunk of negative size": request("POST", "/api/v1/datasets", "Transfer-Encoding: chunked") + b"-2\r\n{}\r\n",
    "a chunk longer than said": request("POST", "/api/v1/datasets", "Transfer-Encoding: chunked")
    + b"1\r\n{}\r\n0\r\n\r\n",
    "an endless chunk extension": request("POST", "/api/v1/datasets", "Transfer-Encoding: chunked")
    + b"2;"
    + b"x" * 99_999,
    "an unknown method": request("BREW", "/api/v1/datasets"),
    "a method in lower case": request("get", "/api/v1/datasets"),
    "a method of garbage": request("G\x01T", "/api/v1/datasets"),
    "TRACE": request("TRACE", "/api/v1/datasets"),
    "CONNECT": request("CONNECT", "127.0.0.1:22"),
    "OPTIONS": request("OPTIONS", "*"),
    "DELETE of everything": request("DELETE", "/api/v1/datasets"),
    "PUT into the API": request("PUT", "/api/v1/datasets/x", body=b"x"),
    "WebDAV": request("PROPFIND", "/api/v1/datasets"),
    "another protocol": request("GET", "/healthz", version="ICY/1.0"),
    "a version of the future": request("GET", "/healthz", version="HTTP/9.9"),
    "no version": b"GET /healthz\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "NULs": bytes(10_000),
    "noise": bytes((number * 7919) % 256 for number in range(10_000)),
    "passed on by a proxy": request("GET", "/api/v1/handlers", "X-Forwarded-For: ::1, <script>, 127.0.0.1"),
    "passed on by another proxy": request("GET", "/api/v1/handlers", "Forwarded: for=127.0.0.1"),
    "a picture on a page of another site": request("GET", "/api/v1/handlers/tones/1.0", "Sec-Fetch-Site: cross-site"),
    "a picture on a page of another port": request("GET", "/api/v1/handlers/tones/1.0", "Sec-Fetch-Site: same-site"),
    "an unknown expectation": request("POST", "/api/v1/datasets", "Expect: a miracle", body=b"{}"),
}
HARMLESS = {
    "an override of the method": "X-HTTP-Method-Override: DELETE",
    "a URL to rewrite to": "X-Original-URL: /../../etc/passwd",
    "a forwarded host": "X-Forwarded-Host: evil.example",
    "another protocol": "Upgrade: h2c",
    "a token where none is needed": "Authorization: Bearer \xff\xfe",
    "a cookie": "Cookie: a=" + "b" * 4000,
    "an origin that only reads": "Origin: https://evil.example",
    "a date that is none": "If-Modified-Since: yesterday",
    "a request id to forge lines with": "X-Request-Id: a%0d%0aERROR: forged",
}
RANGES = [
    "bytes=0-0,1-1,2-2",
    "bytes=0-,0-,0-,0-",
    "bytes=" + ",".join(f"{number}-" for number in range(1200)),
    "bytes=-0",
    "bytes=-1",
    "bytes=--1",
    "bytes=5-1",
    "bytes=1-1-1",
    "bytes=99999999999999999999999999-",
    "bytes=0-99999999999999999999999999",
    "bytes=-99999999999999999999999999",
    "bytes=9223372036854775807-9223372036854775808",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=0x0-0x1",
    "bytes=٠-١",
    "bytes= 0 - 1 ",
    "bytes=1e1-",
    "octets=0-1",
    "0-1",
    "bytes=0-" + "9" * 4000,
]
POST = b"POST /api/v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLOW = {
    "nothing at all": (b"", b"", CLOSED),
    "half a line": (b"GET /heal", b"", CLOSED),
    "no end of headers": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"", CLOSED),
    "a header by and by": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"x", CLOSED),
    "headers by and by": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X-Slow: 1\r\n", CLOSED),
    "blank lines": (b"", b"\r\n", CLOSED),
    "no body": (POST + b"Content-Length: 100\r\n\r\n", b"", 408),
    "half a body": (POST + b"Content-Length: 100\r\n\r\n{", b"", 408),
    "a body by and by": (POST + b"Content-Length: 1000000\r\n\r\n{", b" ", 408),
    "no end of chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"", 408),
    "chunks by and by": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 408),
    "half a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{", b"", 408),
    "a body nobody asked for": (
        b"GET /api/v1/handlers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n",
        b"",
        408,
    ),
}
ORIGINS = [
    "https://evil.example",
    "null",
    "",
    "http://127.0.0.1:1",
    "http://localhost",
    "http://127.0.0.1.evil.example",
    "http://evil.example/127.0.0.1",
    "http://127.0.0.1@evil.example",
    "file://",
    "127.0.0.1",
    "javascript://127.0.0.1",
    "http://127.0.0.1, https://evil.example",
]
UPGRADE = (
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + base64.b64encode(bytes(16)).decode(),
)


def upgrade(*headers):
    sent = request("GET", f"/api/v1/notifications?topic={TOPIC}", *UPGRADE, *headers)
    return sent.replace(b"Connection: close", b"Connection: Upgrade")


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FRAMES = {
    "a message": frame(TEXT, b"{}"),
    "bytes": frame(BINARY, b"{}"),
    "a message of 5,000 bytes": frame(TEXT, b"x" * 5000),
    "a frame that claims 2**31": frame(TEXT, b"x", length=1 << 31),
    "a frame that claims 2**63 - 1": frame(BINARY, b"x", length=(1 << 63) - 1),
    "fragments without end": frame(TEXT, b"x" * 100, final=False) + frame(0, b"x" * 100, final=False) * 1000,
    "empty fragments without end": frame(TEXT, final=False) + frame(0, final=False) * 10_000 + frame(0, b"x"),
    "a compressed bomb": frame(TEXT, bytes.fromhex("ecc1010d000000c2a0f74f6d0e37a000") * 64, reserved=4),
    "reserved bits": frame(TEXT, b"x", reserved=3),
    "an unknown opcode": frame(5, b"x"),
    "an unknown control opcode": frame(13, b"x"),
    "a ping of 126 bytes": frame(PING, b"x" * 126),
    "a ping in two": frame(PING, b"x", final=False),
    "text that is not UTF-8": frame(TEXT, b"\xff\xfe"),
    "a close of one byte": frame(CLOSE, b"x"),
    "a close with a wrong code": frame(CLOSE, struct.pack("!H", 999)),
    "a close with a reason that is not UTF-8": frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
    "a continuation of nothing": frame(0, b"x"),
    "HTTP": GOOD,
}
QUERIES = [
    "",
    "topic=",
    "topic=..",
    "after=1",
    f"topic={TOPIC}&after=-1",
    f"topic={TOPIC}&after=1e3",
    f"topic={TOPIC}&after={'9' * 400}",
    f"topic={TOPIC}&after=٣",
    f"topic={TOPIC}&surprise=1",
    "&".join(f"topic=coco_1_{number:032x}.zip" for number in range(3000)),
    "&".join(f"topic=coco_1_{number:032x}.zip" for number in range(150)) + "&topic=x",
    "topic=%00",
    "&" * 5000 + "x=1",
]
HANDSHAKES = {
    "no key": ("Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "a key too short": ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="),
    "a key that is none": ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: \xff"),
    "no version": ("Upgrade: websocket", UPGRADE[2]),
    "a version of 99": ("Upgrade: websocket", "Sec-WebSocket-Version: 99", UPGRADE[2]),
    "another upgrade": ("Upgrade: h2c", "Sec-WebSocket-Version: 13", UPGRADE[2]),
}
