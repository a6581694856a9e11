"""The image store: pages, progress, archives that are streamed, and what ends each of them."""

import asyncio
import io
import json
import os
import threading

import pytest

from faas_sdk import (
    APIError,
    AsyncFaaSClient,
    ConnectionLostError,
    FaaSClient,
    ImageUnavailableError,
    NotFoundError,
    OverloadedError,
    ResponseFormatError,
)
from faas_sdk._transport.upload import PIECE_BYTES
from tests.stub import Reply, image, problem

NDJSON = {"content-type": "application/x-ndjson"}
STEP = {"event": "progress", "phase": "receiving", "layer": "sha256:aa", "done_bytes": 1, "total_bytes": 2}
DONE = {"event": "done", "images": [image()]}
IDS = ["sha256:" + digit * 64 for digit in "123"]


def added(*images):
    return Reply(status=201, json={"images": list(images)})


def events(*said, **reply):
    body = b"".join(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n" for event in said)
    return Reply(status=201, body=body, headers=NDJSON, **reply)


def overloaded():
    return Reply(status=503, json=problem(503, "overloaded", retryable=True))


def test_every_member_of_an_image_is_read(caller, stub):
    body = image(created_at="2020-01-01T00:00:00Z", entrypoint=["/bin/x"], user="nobody", in_use=True, newer=1)
    stub.replies(Reply(json=[body]))
    (found,) = caller("images.list")
    assert (stub.seen[0].method, stub.seen[0].path) == ("GET", "/api/v1/images")
    for name in image():
        expected = tuple(body[name]) if isinstance(body[name], list) else body[name]
        assert getattr(found, name) == expected, name
    assert found.raw["newer"] == 1


def test_a_list_of_several_pages_is_one_list(caller, stub):
    stub.replies(
        Reply(json=[image(id=IDS[0])], headers={"x-next-cursor": "1f-a"}),
        Reply(json=[image(id=IDS[1])], headers={"x-next-cursor": "2f-b&"}),
        Reply(json=[image(id=IDS[2])]),
    )
    assert [found.id for found in caller("images.list")] == IDS
    assert [seen.path.partition("?")[2] for seen in stub.seen] == ["", "cursor=1f-a", "cursor=2f-b%26"]


def test_a_limit_is_of_all_pages(caller, stub):
    stub.replies(
        Reply(json=[image(id=IDS[0]), image(id=IDS[1])], headers={"x-next-cursor": "a"}),
        Reply(json=[image(id=IDS[2])], headers={"x-next-cursor": "b"}),
    )
    assert [found.id for found in caller("images.list", limit=3)] == IDS
    assert [seen.path.partition("?")[2] for seen in stub.seen] == ["limit=3", "limit=1&cursor=a"]
    stub.replies(Reply(json=[]))
    assert caller("images.list", "tiny:1", limit=5000) == ()
    assert stub.seen[-1].path == "/api/v1/images?name=tiny%3A1&limit=1000"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(json={}), "the body is an object, not an array"),
        (Reply(json=[image(), 1]), "/1 is a number, not an object"),
        (Reply(json=[image(layers="1")]), "/0/layers is a string, not a whole number"),
        (Reply(json=[image(env_vars={"A": 1})]), "/0/env_vars/A is a number, not a string"),
        (Reply(json=[], headers={"x-next-cursor": "a"}), "this one again"),
        (Reply(json=[image()], headers={"x-next-cursor": "a"}), "this one again"),
    ],
)
def test_a_list_that_is_not_the_contracts_is_refused(caller, stub, reply, words):
    stub.replies(reply)
    with pytest.raises(ResponseFormatError, match=words):
        caller("images.list")


def test_a_page_is_asked_for_again_where_the_connection_breaks(caller, stub):
    stub.replies(Reply(cut_after=-1), Reply(json=[image()]))
    assert len(caller("images.list")) == 1


def test_pull_without_progress_is_one_answer(caller, stub):
    stub.replies(added(image()))
    assert caller("images.pull", "tiny:1").names == ("docker.io/library/tiny:1",)
    (seen,) = stub.seen
    assert (seen.method, seen.path, seen.json) == ("POST", "/api/v1/images", {"name": "tiny:1"})
    assert (seen.headers["accept"], seen.headers["content-type"]) == ("application/json", "application/json")


def test_a_pull_with_an_idempotency_key_is_sent_again_and_has_no_progress(caller, stub):
    stub.replies(Reply(cut_after=-1), added(image()))
    caller("images.pull", "tiny:1", idempotency_key="k")
    assert [seen.headers["idempotency-key"] for seen in stub.seen] == ["k", "k"]
    with pytest.raises(ValueError, match="on_progress"):
        caller("images.pull", "tiny:1", idempotency_key="k", on_progress=print)
    with pytest.raises(ValueError, match="idempotency-key"):
        caller("images.pull", "tiny:1", idempotency_key="a\nb")
    assert len(stub.seen) == 2


def test_pull_tells_of_its_progress_as_it_comes(caller, stub):
    first = json.dumps(STEP).encode() + b"\n"
    held = threading.Event()
    # The second step, and the end, are sent only after the first one has been told of.
    stub.replies(
        events(STEP, b"\n", STEP | {"layer": None, "total_bytes": None}, DONE, hold=held, hold_after=len(first))
    )
    steps = []

    def told(step):
        steps.append(step)
        held.set()

    assert caller("images.pull", "tiny:1", on_progress=told).id == image()["id"]
    assert stub.seen[0].headers["accept"] == "application/x-ndjson"
    assert [(s.phase, s.layer, s.done_bytes, s.total_bytes) for s in steps] == [
        ("receiving", "sha256:aa", 1, 2),
        ("receiving", None, 1, None),
    ]


def test_events_of_a_newer_gateway_are_passed_over(caller, stub):
    stub.replies(events({"event": "warning", "phase": 1}, DONE, b"not looked at any more\n"))
    assert caller("images.pull", "tiny:1", on_progress=print).id == image()["id"]


def test_a_document_in_place_of_events_is_read(caller, stub):
    stub.replies(added(image()))
    assert caller("images.pull", "tiny:1", on_progress=print).id == image()["id"]


@pytest.mark.parametrize("on_progress", [None, lambda _step: None])
def test_an_error_before_the_first_step_has_its_class(caller, stub, on_progress):
    stub.replies(Reply(status=502, json=problem(502, "image_unavailable")))
    with pytest.raises(ImageUnavailableError, match="this is image_unavailable"):
        caller("images.pull", "none", on_progress=on_progress)
    assert len(stub.seen) == 1


def test_an_error_among_the_events_has_its_class_and_status(caller, stub):
    stub.replies(events(STEP, {"event": "error"} | problem(502, "image_unavailable", retryable=True)))
    with pytest.raises(ImageUnavailableError) as caught:
        caller("images.pull", "none", on_progress=lambda _step: None)
    error = caught.value
    assert (error.status, error.detail, error.request_id, error.retryable) == (
        502, "this is image_unavailable", "req-9", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "reply",
    [events(STEP, DONE, cut_after=20), events(STEP), events(STEP, json.dumps(DONE).encode()), events()],
    ids=["broken off", "ended", "last line unfinished", "nothing"],
)
def test_events_without_an_end_are_a_lost_connection_and_not_asked_for_again(caller, stub, reply):
    stub.replies(reply)
    with pytest.raises(ConnectionLostError) as caught:
        caller("images.pull", "tiny:1", on_progress=lambda _step: None)
    assert caught.value.request_sent
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b"<html>\n", "a line is not JSON"),
        (b"[]\n", "the body is an array, not an object"),
        ({"phase": "x"}, "/event is missing"),
        (STEP | {"done_bytes": "1"}, "/done_bytes is a string"),
        ({"event": "done", "images": [{}]}, "/images/0/id is missing"),
        ({"event": "done", "images": []}, "/images has 0 entries for one image"),
    ],
)
def test_events_that_are_not_the_contracts_are_refused(caller, stub, event, words):
    stub.replies(events(event))
    with pytest.raises(ResponseFormatError, match=words):
        caller("images.pull", "tiny:1", on_progress=lambda _step: None)


def test_what_on_progress_raises_ends_the_call(caller, stub):
    stub.replies(events(STEP, STEP, DONE))
    told = []

    def refuse(step):
        told.append(step)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        caller("images.pull", "tiny:1", on_progress=refuse)
    assert (len(told), len(stub.seen)) == (1, 1)


def test_an_archive_is_sent_from_its_path_with_its_length(caller, stub, tmp_path):
    content = os.urandom(2 * PIECE_BYTES + 7)
    (tmp_path / "image.tar").write_bytes(content)
    stub.replies(added(image(id=IDS[0]), image(id=IDS[1])))
    for path in (tmp_path / "image.tar", str(tmp_path / "image.tar")):
        assert [found.id for found in caller("images.import_archive", path, "mine:1")] == IDS[:2]
    for seen in stub.seen:
        assert (seen.method, seen.path) == ("POST", "/api/v1/images?name=mine%3A1")
        assert seen.raw == content
        assert seen.headers["content-length"] == str(len(content))
        assert seen.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_an_archive_may_be_bytes(caller, stub, kind):
    stub.replies(added(image()))
    caller("images.import_archive", kind(b"archive"))
    assert (stub.seen[0].path, stub.seen[0].raw) == ("/api/v1/images", b"archive")


def test_an_open_file_is_read_piecewise_from_where_it_stands_and_left_open(caller, stub):
    sizes = []

    class Watched(io.BytesIO):
        def read(self, size=-1, /):
            sizes.append(size)
            return super().read(size)

    content = os.urandom(3 * PIECE_BYTES)
    file = Watched(content)
    file.seek(5)
    stub.replies(added(image()))
    caller("images.import_archive", file)
    assert stub.seen[0].raw == content[5:]
    assert stub.seen[0].headers["transfer-encoding"] == "chunked"
    assert set(sizes) == {PIECE_BYTES}
    assert not file.closed


def test_a_pipe_at_a_path_is_read_once(caller, stub, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"archive",))
    writer.start()
    stub.replies(overloaded())
    with pytest.raises(OverloadedError):
        caller("images.import_archive", tmp_path / "pipe")
    writer.join()
    assert [seen.raw for seen in stub.seen] == [b"archive"]


def test_import_tells_of_its_progress(caller, stub):
    stub.replies(events(STEP | {"phase": "committing"}, DONE))
    phases = []
    (found,) = caller("images.import_archive", b"x", on_progress=lambda step: phases.append(step.phase))
    assert (phases, found.id) == (["committing"], image()["id"])
    assert stub.seen[0].headers["accept"] == "application/x-ndjson"


def test_an_archive_that_can_be_read_again_is_sent_again(caller, stub, tmp_path):
    (tmp_path / "image.tar").write_bytes(b"archive")
    for archive in (tmp_path / "image.tar", b"archive"):
        stub.replies(overloaded(), added(image()))
        stub.seen.clear()
        caller("images.import_archive", archive)
        assert [seen.raw for seen in stub.seen] == [b"archive"] * 2


def test_an_archive_from_an_open_file_is_sent_once(caller, stub):
    stub.replies(overloaded())
    with pytest.raises(OverloadedError):
        caller("images.import_archive", io.BytesIO(b"archive"))
    assert len(stub.seen) == 1


def test_what_is_no_archive_is_refused_before_anything_is_sent(caller, stub, tmp_path):
    with pytest.raises(IsADirectoryError, match="make a tar of it"):
        caller("images.import_archive", tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        caller("images.import_archive", str(tmp_path / "missing"))
    for wrong in (None, 7, ["x"]):
        with pytest.raises(TypeError, match="a path, bytes, or an open file"):
            caller("images.import_archive", wrong)
    for verb in ("pull", "remove"):
        with pytest.raises(TypeError, match="name is a string, not bytes"):
            caller(f"images.{verb}", b"x")
    assert stub.seen == []


def test_a_file_of_text_is_refused_with_the_reason(caller):
    with pytest.raises(TypeError, match="mode 'rb'"):
        caller("images.import_archive", io.StringIO("text"))


@pytest.mark.parametrize("change", [b"ab", b"abcdef"], ids=["shorter", "longer"])
def test_a_file_is_sent_as_long_as_it_was(stub, tmp_path, change):
    path = tmp_path / "image.tar"
    path.write_bytes(b"abcd")
    stub.replies(added(image()))
    with FaaSClient(stub.url) as client:
        build = client._transport._http.build_request

        def change_then_build(*args, **options):
            path.write_bytes(change)
            return build(*args, **options)

        client._transport._http.build_request = change_then_build
        if len(change) > 4:
            client.images.import_archive(path)
            assert stub.seen[0].raw == b"abcd"
        else:
            with pytest.raises(OSError, match="2 bytes shorter"):
                client.images.import_archive(path)


def test_cancelling_an_import_closes_its_connection_and_its_file(stub, tmp_path):
    (tmp_path / "image.tar").write_bytes(b"archive")
    stub.replies(Reply(status=201, json={"images": []}, hold=threading.Event()), added(image()))

    async def cancelled():
        async with AsyncFaaSClient(stub.url, max_connections=1) as client:
            task = asyncio.create_task(client.images.import_archive(tmp_path / "image.tar"))
            await asyncio.to_thread(stub.arrived.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await client.images.import_archive(tmp_path / "image.tar")

    assert len(asyncio.run(cancelled())) == 1


def test_remove_has_no_result(caller, stub):
    stub.replies(Reply(status=204))
    assert caller("images.remove", "reg:5000/a b@sha256:0") is None
    (seen,) = stub.seen
    assert (seen.method, seen.path) == ("DELETE", "/api/v1/images?name=reg%3A5000%2Fa+b%40sha256%3A0")


def test_a_removal_that_may_have_been_done_is_not_sent_twice(caller, stub):
    stub.replies(Reply(cut_after=-1))
    with pytest.raises(ConnectionLostError):
        caller("images.remove", "tiny:1")
    assert len(stub.seen) == 1


def test_removing_what_is_not_there_has_its_class(caller, stub):
    stub.replies(Reply(status=404, json=problem(404, "not_found")))
    with pytest.raises(NotFoundError) as caught:
        caller("images.remove", "tiny:1")
    assert isinstance(caught.value, APIError)
