"""Files of an instance: what each verb sends, both ways without holding the whole, and what is tried again."""

import io
import json
import tarfile
import threading
from pathlib import PurePosixPath
from urllib.parse import parse_qs, urlsplit

import pytest

from faas_sdk import (
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    InsufficientStorageError,
    NotFoundError,
    RangeNotSatisfiableError,
    ResponseFormatError,
    SandboxLostError,
)
from tests.driver import drive
from tests.stub import Reply, file_info, instance, problem

PATH = "/api/v1/instances/ins-1/files"
BYTES = {"content-type": "application/octet-stream"}
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture
def files(caller, stub):
    """Does steps with the files of an instance; what was sent after the instance was got."""

    def do(steps, *replies):
        stub.seen.clear()
        stub.replies(Reply(json=instance()), *replies)

        async def all_of_it(driver):
            found = await driver(driver.client.instances.get, "ins-1")
            return await steps(driver, found.files)

        return drive(caller, all_of_it)

    return do


@pytest.fixture
def one(files, stub):
    """Calls one verb; its result, and the method, the query and the request."""

    def call(verb, *args, reply, **options):
        async def steps(driver, of):
            return await driver(getattr(of, verb), *args, **options)

        result = files(steps, reply)
        seen = stub.seen[-1]
        parts = urlsplit(seen.path)
        assert parts.path == PATH
        query = {name: value for name, (value,) in parse_qs(parts.query, strict_parsing=True).items()}
        return result, seen.method, query, seen

    return call


def test_a_file_is_read_whole_or_in_part(one):
    whole = Reply(body=b"\x00\xff", headers=BYTES)
    result, method, query, seen = one("read", "/srv/h\u00e9 +&%", reply=whole)
    assert (result, method, query) == (b"\x00\xff", "GET", {"path": "/srv/h\u00e9 +&%"})
    assert "range" not in seen.headers
    part = Reply(status=206, body=b"bc", headers=BYTES)
    for options, header in (
        ({"offset": 1, "length": 2}, "bytes=1-2"),
        ({"offset": 7}, "bytes=7-"),
        ({"length": 1}, "bytes=0-0"),
    ):
        result, _, query, seen = one("read", PurePosixPath("/a"), user="nobody", reply=part, **options)
        assert (result, query, seen.headers["range"]) == (b"bc", {"path": "/a", "user": "nobody"}, header)
    assert one("read_text", "/a", reply=Reply(body="h\u00e9".encode(), headers=BYTES))[0] == "h\u00e9"
    assert one("read_text", "/a", encoding="latin-1", reply=Reply(body=b"\xe9", headers=BYTES))[0] == "\u00e9"
    # What looks like an answer in JSON is a file all the same.
    assert one("read", "/a", reply=Reply(body=b"{}"))[0] == b"{}"


@pytest.mark.parametrize("part", [{"offset": -1}, {"length": 0}, {"offset": 1, "length": -1}])
def test_what_is_no_part_of_a_file_is_refused(one, stub, part):
    with pytest.raises(ValueError, match="are no part of a file"):
        one("read", "/a", reply=Reply(), **part)
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "forbidden", ForbiddenError),
        (404, "not_found", NotFoundError),
        (409, "conflict", ConflictError),
        (416, "range_not_satisfiable", RangeNotSatisfiableError),
        (507, "insufficient_storage", InsufficientStorageError),
    ],
)
@pytest.mark.parametrize("verb", [("read", "/a"), ("open", "/a"), ("download_tar", "/a"), ("write", "/a", "x")])
def test_a_refusal_has_its_class(one, status, code, kind, verb):
    with pytest.raises(kind):
        one(*verb, reply=Reply(status=status, json=problem(status, code)))


def test_a_part_that_comes_as_a_whole_is_refused(one):
    with pytest.raises(Exception, match="200"):
        one("read", "/a", length=1, reply=Reply(body=b"abc", headers=BYTES))


def test_a_file_is_read_while_it_comes(files, stub, caller):
    content = bytes(range(256)) * 4096
    hold = threading.Event()
    reply = Reply(body=content, headers=BYTES, hold=hold, hold_after=1000)

    async def steps(driver, of):
        file = await driver(of.open, "/big", offset=0)
        if caller.kind == "sync":
            with file:
                assert isinstance(file, io.BufferedIOBase)
                first = file.read1(600)
                hold.set()
                return first + file.read(10) + b"".join(file)
        async with file:
            first = await file.read(600)
            hold.set()
            return first + await file.read(10) + b"".join([piece async for piece in file])

    assert files(steps, reply) == content


def test_a_file_that_is_left_before_its_end_frees_its_connection(files, caller):
    caller.settings["max_connections"] = 1
    hold = threading.Event()

    async def steps(driver, of):
        file = await driver(of.open, "/big")
        await driver(file.close)
        await driver(file.close)
        return await driver(of.read, "/a")

    reply = Reply(body=b"x" * 5000, headers=BYTES, hold=hold, hold_after=10)
    assert files(steps, reply, Reply(body=b"small", headers=BYTES)) == b"small"


def test_a_file_that_does_not_come_whole_is_an_error(files, stub, caller):
    cut = Reply(body=b"x" * 100, headers=BYTES, cut_after=50)

    async def opened(driver, of):
        file = await driver(of.open, "/a")
        try:
            return await driver(file.read)
        finally:
            await driver(file.close)

    with pytest.raises(ConnectionLostError):
        files(opened, cut)
    assert len(stub.seen) == 2

    async def read(driver, of):
        return await driver(of.read, "/a")

    # Read whole, it is asked for again; opened, it is where nothing of it has come.
    assert files(read, cut, Reply(body=b"whole", headers=BYTES)) == b"whole"
    assert files(opened, Reply(cut_after=-1), Reply(body=b"whole", headers=BYTES)) == b"whole"


@pytest.mark.parametrize(("content", "sent"), [("h\u00e9", "h\u00e9".encode()), (b"\xff", b"\xff"), (b"", b"")])
def test_a_file_is_written(one, content, sent):
    result, method, query, seen = one("write", "/a", content, reply=Reply(status=201, json=file_info()))
    assert (result.path, method, query, seen.raw) == ("/a", "PUT", {"path": "/a"}, sent)
    assert seen.headers["content-type"] == "application/octet-stream"
    options = {"mode": 0o755, "owner": "1:1", "user": "0"}
    _, _, query, _ = one("write", "/a", content, **options, reply=Reply(json=file_info()))
    assert query == {"path": "/a", "mode": "0755", "owner": "1:1", "user": "0"}


def test_bytes_are_written_again_where_the_connection_breaks_and_a_stream_is_not(files, stub, tmp_path):
    (tmp_path / "local").write_bytes(b"local")

    def writing(verb, source):
        async def steps(driver, of):
            return await driver(getattr(of, verb), "/a", source)

        return steps

    for verb, source in (("write", b"x"), ("write_stream", b"x"), ("write_stream", tmp_path / "local")):
        files(writing(verb, source), Reply(cut_after=-1), Reply(json=file_info()))
        assert [seen.raw for seen in stub.seen[1:]] == [b"local" if verb.endswith("m") and source != b"x" else b"x"] * 2
    for source in (io.BytesIO(b"x"), iter([b"x"])):
        with pytest.raises(ConnectionLostError):
            files(writing("write_stream", source), Reply(cut_after=-1), Reply(json=file_info()))
        assert len(stub.seen) == 2


def test_a_file_is_written_from_a_file_an_iterator_or_what_can_be_read(one, tmp_path, caller):
    content = b"0123456789" * 60_000
    (tmp_path / "local").write_bytes(content)
    pieces = [content[at : at + 7000] for at in range(0, len(content), 7000)]
    reply = Reply(status=201, json=file_info(size_bytes=len(content)))

    async def asynchronous():
        for piece in (*pieces, b""):
            yield piece

    with (tmp_path / "local").open("rb") as opened:
        sources = [
            tmp_path / "local",
            str(tmp_path / "local"),
            opened,
            io.BytesIO(content),
            iter(pieces),
            [b"", *pieces],
            (bytearray(piece) for piece in pieces),
        ]
        if caller.kind == "async":
            sources.append(asynchronous())
        for number, source in enumerate(sources):
            result, method, query, seen = one("write_stream", "/a", source, mode="0600", reply=reply)
            assert (result.size_bytes, method, query) == (len(content), "PUT", {"path": "/a", "mode": "0600"})
            assert seen.raw == content, number
            assert ("content-length" in seen.headers) == (number < 2)


def test_what_cannot_be_sent_is_refused(one, stub, tmp_path, caller):
    async def asynchronous():
        yield b"x"

    for source, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "none", FileNotFoundError),
        (3, TypeError),
        *([(asynchronous(), TypeError)] if caller.kind == "sync" else []),
    ):
        with pytest.raises(error):
            one("write_stream", "/a", source, reply=Reply())
        assert len(stub.seen) == 1
    with pytest.raises(TypeError, match="a path is text, not bytes"):
        one("stat", b"/a", reply=Reply())
    # Half sent already: the stub may see it at any time, so it is the last.
    with pytest.raises(TypeError, match="the iterator gives str, not bytes"):
        one("write_stream", "/a", iter(["x"]), reply=Reply(json=file_info()))


def test_what_stands_at_a_path_is_told(one):
    body = file_info(
        path="/\ufffd", path_base64="L/8=", name="\ufffd", type="symlink", mode="4777", uid=7, gid=8, owner=None,
        group="staff", target="../b", newer=1,
    )  # fmt: skip
    result, method, query, _ = one("stat", "/l", reply=Reply(json=body))
    assert (method, query) == ("GET", {"path": "/l", "stat": "true"})
    for name in (*file_info(), "path_base64"):
        assert getattr(result, name) == body[name], name
    assert result.raw["newer"] == 1
    assert one("stat", "/a", reply=Reply(json=file_info()))[0].path_base64 is None
    with pytest.raises(ResponseFormatError, match="/size_bytes is missing"):
        one("stat", "/a", reply=Reply(json={"path": "/a", "name": "a", "type": "file"}))


def test_a_directory_is_listed_over_all_pages(files, stub):
    async def steps(driver, of):
        return await driver(of.list, "/d", user="1")

    pages = (
        Reply(json=[file_info(name="a")], headers={"x-next-cursor": "c"}),
        Reply(json=[file_info(name="b"), file_info(name="c")]),
    )
    assert [found.name for found in files(steps, *pages)] == ["a", "b", "c"]
    assert [parse_qs(urlsplit(seen.path).query) for seen in stub.seen[1:]] == [
        {"path": ["/d"], "list": ["true"], "user": ["1"]},
        {"path": ["/d"], "list": ["true"], "user": ["1"], "cursor": ["c"]},
    ]


@pytest.mark.parametrize(
    ("verb", "args", "options", "method", "query"),
    [
        ("mkdir", ["/d"], {"mode": "0700"}, "POST", {"op": "mkdir", "path": "/d", "mode": "0700"}),
        ("move", ["/a", "/b"], {"user": "1"}, "POST", {"op": "move", "path": "/a", "to": "/b", "user": "1"}),
        ("remove", ["/a"], {}, "DELETE", {"path": "/a"}),
        ("remove", ["/a"], {"recursive": True}, "DELETE", {"path": "/a", "recursive": "true"}),
    ],
)
def test_changes_are_one_request_each(one, verb, args, options, method, query):
    reply = Reply(status=204) if verb == "remove" else Reply(json=file_info(path="/z"))
    result, seen_method, seen_query, seen = one(verb, *args, **options, reply=reply)
    assert (seen_method, seen_query, seen.raw) == (method, query, b"")
    assert result is None if verb == "remove" else result.path == "/z"


def test_only_what_does_no_more_the_second_time_is_tried_again(files, stub):
    for verb, args, attempts in (("mkdir", ["/a"], 3), ("move", ["/a", "/b"], 1), ("remove", ["/a"], 1)):

        async def steps(driver, of, verb=verb, args=args):
            return await driver(getattr(of, verb), *args)

        with pytest.raises(ConnectionLostError):
            files(steps, Reply(cut_after=-1))
        assert len(stub.seen) == 1 + attempts, verb


def test_tar_archives_go_both_ways(files, one, caller):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("d/a")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    content = archive.getvalue()

    async def steps(driver, of):
        file = await driver(of.download_tar, "/d")
        if caller.kind == "async":
            async with file:
                return await file.read()
        with file, tarfile.open(fileobj=file, mode="r|") as tar:
            assert [member.name for member in tar] == ["d/a"]
        return content

    assert files(steps, Reply(body=content, headers={"content-type": "application/x-tar"})) == content
    done = Reply(json={"files": 1, "bytes": 3})
    result, method, query, seen = one("upload_tar", "/e", iter([content]), reply=done)
    assert (result.files, result.bytes, method) == (1, 3, "PUT")
    assert (query, seen.raw) == ({"path": "/e", "tar": "true"}, content)


def watched(*events):
    return Reply(body=b"".join(json.dumps(event).encode() + b"\n" for event in events), headers=NDJSON)


def test_a_watch_tells_what_happens_and_ends_with_its_connection(files, stub):
    async def steps(driver, of):
        return await driver.each(of.watch("/d", recursive=True), most=4)

    ready, created, moved, overflow = files(
        steps,
        watched(
            {"event": "ready"},
            {"event": "created", "path": "/d/a", "type": "file"},
            {"event": "moved", "path": "/d/b", "from": "/d/a", "type": "file"},
            {"event": "overflow"},
        ),
    )
    assert (ready.kind, ready.path, ready.type) == ("ready", None, None)
    assert (created.kind, created.path, created.moved_from, created.type) == ("created", "/d/a", None, "file")
    assert (moved.kind, moved.path, moved.moved_from) == ("moved", "/d/b", "/d/a")
    assert overflow.kind == "overflow"
    assert parse_qs(urlsplit(stub.seen[1].path).query) == {"path": ["/d"], "watch": ["true"], "recursive": ["true"]}

    async def to_its_end(driver, of):
        return await driver.each(of.watch("/d"))

    lost = {"event": "error"} | problem(502, "sandbox_lost")
    with pytest.raises(SandboxLostError):
        files(to_its_end, watched({"event": "ready"}, lost))
    with pytest.raises(ConnectionLostError):
        files(to_its_end, watched({"event": "ready"}))
    assert len(stub.seen) == 2


def test_the_files_of_an_instance_by_its_id(caller, stub):
    stub.replies(Reply(json=file_info()))

    async def steps(driver):
        return await driver(driver.client.instances.files("ins-1").stat, "/a")

    assert drive(caller, steps).name == "a"
