"""What is in an instance's files, and what becomes of them, as a client sees it."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import io
import tarfile
import threading
from datetime import datetime

import pytest

import raw
from files import Files, archive, link, watch
from instances import has_cgroups


@pytest.fixture
def instance(tenant, backend):
    return tenant.instances.create(**backend.create)


@pytest.fixture
def files(tenant, instance) -> Files:
    return Files(tenant.base_url, instance.id)


@pytest.fixture
def has_users(tenant, backend) -> bool:
    """Whether there are other users than root."""
    users = tenant.capabilities().runtimes[backend.name].features.get("users")
    return users is None or users.supported


@pytest.fixture
def is_disk_limited(tenant, backend) -> bool:
    return tenant.capabilities().runtimes[backend.name].features["lasting_disk_limit"].supported


def test_what_is_written_is_read_and_seen_by_commands(files, instance):
    content = bytes(range(256)) * 1000
    put = files.put("/data/deep/file", content)
    assert put.status == 201, put
    info = put.json
    assert (info["path"], info["name"], info["type"]) == ("/data/deep/file", "file", "file")
    assert (info["size_bytes"], info["mode"], info["uid"], info["owner"]) == (len(content), "0644", 0, "root")
    assert files.stat("/data/deep/file") == info
    answer = files.get("/data/deep/file")
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["accept-ranges"] == "bytes"
    modified = email.utils.parsedate_to_datetime(answer.headers["last-modified"])
    assert modified == datetime.fromisoformat(info["modified_at"]).replace(microsecond=0)
    said = instance.exec("sha256sum /data/deep/file").stdout.split()[0]
    assert said == hashlib.sha256(content).hexdigest()
    # Another content in its place keeps its mode.
    instance.exec("chmod 751 /data/deep/file")
    again = files.put("/data/deep/file", [b"a ", b"", b"new one"])
    assert (again.status, again.json["mode"], again.json["size_bytes"]) == (200, "0751", 9)
    assert instance.exec("cat /data/deep/file; ls -A /data/deep").stdout == "a new onefile\n"


def test_head_says_what_get_would(files):
    files.put("/file", b"0123456789")
    head = files.ask("HEAD", "/file")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")
    assert files.ask("HEAD", "/nothing").status == 404
    part = files.ask("HEAD", "/file", headers={"range": "bytes=2-4"})
    assert (part.status, part.headers["content-length"]) == (206, "3")


@pytest.mark.parametrize(
    ("asked", "status", "body", "said"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=3-", 206, b"3456789", "bytes 3-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        # What is no single range is no range.
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=5-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(files, asked, status, body, said):
    files.put("/file", b"0123456789")
    answer = files.get("/file", headers={"range": asked})
    assert (answer.status, answer.headers.get("content-range")) == (status, said), answer
    if status == 416:
        raw.assert_problem(answer, 416, "range_not_satisfiable")
    else:
        assert answer.body == body


def test_a_range_on_a_condition_is_all_of_it(files):
    files.put("/file", b"0123456789")
    answer = files.get("/file", headers={"range": "bytes=0-0", "if-range": '"x"'})
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_empty_files_and_files_of_proc(files, instance):
    assert files.put("/empty", b"").json["size_bytes"] == 0
    empty = files.get("/empty")
    assert (empty.status, empty.body, empty.headers["content-length"]) == (200, b"", "0")
    assert files.get("/empty", headers={"range": "bytes=0-0"}).status == 416
    # Their length is not known before they are read.
    assert files.read("/proc/version") == instance.exec("cat /proc/version").stdout.encode()
    assert files.get("/proc/self/mem").status == 422


def test_paths_are_the_instances(files, instance):
    instance.exec("mkdir -p /a/b; echo x > /a/file; ln -s /a /link; ln -s ../file /a/b/up; ln -s gone /dangling")
    assert files.read("/link/b/../file") == b"x\n"
    assert files.read("/a/b/up") == b"x\n"
    assert files.put("/dangling", b"made").status == 201
    assert files.read("/gone") == b"made"
    seen = files.stat("/dangling")
    assert (seen["type"], seen["target"], seen["path"]) == ("symlink", "gone", "/dangling")
    assert files.stat("/link")["type"] == "symlink"
    assert files.stat("/link/")["type"] == "directory"
    assert files.stat("/")["name"] == "/"


def test_a_path_may_be_relative_to_the_working_directory(tenant, backend):
    with tenant.instances.create(**backend.create, working_dir="/tmp") as instance:
        files = Files(tenant.base_url, instance.id)
        assert files.put("sub/file", b"x").json["path"] == "/tmp/sub/file"
        assert instance.exec("cat sub/file").stdout == "x"
        assert files.names("sub") == ["file"]
    with tenant.instances.create(**backend.create, working_dir="/not-there") as instance:
        files = Files(tenant.base_url, instance.id)
        raw.assert_problem(files.put("file", b"x"), 422, "invalid_request")
        assert files.put("/file", b"x").status == 201


NAMES = [b"a\nb", b"\xff\xfe", "ä".encode(), b"a+b c%20&x=#?", b"-rf", b"'\"$(true)`", b"x" * 255]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_every_name_that_the_kernel_takes_is_one(files, name):
    path = b"/names/" + name
    assert files.put(path, name).status == 201
    assert files.read(path) == name
    info = files.stat(path)
    [entry] = files.get("/names", list=True).json
    assert entry == info
    assert info["path"].encode() == path or base64.b64decode(info["path_base64"]) == path
    moved = files.ask("POST", path, op="move", to="/names/plain")
    assert (moved.status, moved.json["path"]) == (200, "/names/plain")
    assert files.names("/names") == ["plain"]


def test_a_large_directory_comes_in_pages(files, instance):
    made = instance.exec("mkdir /many; cd /many; seq 100000 | xargs touch", timeout_ms=600_000)
    assert made.ok, made
    assert files.names("/many") == sorted(str(number) for number in range(1, 100_001))
    page = files.get("/many", list=True, limit=2)
    assert [entry["name"] for entry in page.json] == ["1", "10"]
    # Those that come and go move nothing.
    instance.exec("rm /many/10; touch /many/0 /many/101")
    page = files.get("/many", list=True, limit=2, cursor=page.headers["x-next-cursor"])
    assert [entry["name"] for entry in page.json] == ["100", "1000"]
    assert files.ask("DELETE", "/many").status == 409
    assert files.ask("DELETE", "/many", recursive=True).status == 204
    assert files.get("/many", stat=True).status == 404


def test_an_entry_is_what_it_is(files, instance):
    instance.exec("mkdir /k; cd /k; mkfifo fifo; ln -s x symlink; mkdir -m 1777 directory; touch file; chmod 4640 file")
    kinds = {entry["name"]: (entry["type"], entry["mode"]) for entry in files.get("/k", list=True).json}
    assert kinds == {
        "fifo": ("fifo", "0644"),
        "symlink": ("symlink", "0777"),
        "directory": ("directory", "1777"),
        "file": ("file", "4640"),
    }
    assert files.stat("/dev/null")["type"] == "char_device"


def test_directories_are_made_with_those_above_them(files):
    made = files.ask("POST", "/x/y/z", op="mkdir", mode="0700")
    assert (made.status, made.json["type"], made.json["mode"]) == (201, "directory", "0700")
    again = files.ask("POST", "/x/y/z", op="mkdir", mode="0755")
    assert (again.status, again.json["mode"]) == (200, "0700")
    assert files.stat("/x")["mode"] == "0755"
    files.put("/x/file", b"")
    raw.assert_problem(files.ask("POST", "/x/file", op="mkdir"), 409, "conflict")
    raw.assert_problem(files.ask("POST", "/x/file/below", op="mkdir"), 422, "invalid_request")


def test_what_is_moved_is_where_it_was_moved_to(files, instance):
    instance.exec("mkdir -p /from/in; echo x > /from/in/file; mkdir /full; echo y > /full/file; echo old > /file")
    assert files.ask("POST", "/from/in", op="move", to="/in").json["type"] == "directory"
    assert files.ask("POST", "/in/file", op="move", to="/file").status == 200
    assert files.read("/file") == b"x\n"
    raw.assert_problem(files.ask("POST", "/in", op="move", to="/full"), 409, "conflict")
    raw.assert_problem(files.ask("POST", "/in", op="move", to="/in/below"), 422, "invalid_request")
    raw.assert_problem(files.ask("POST", "/nothing", op="move", to="/x"), 404, "not_found")
    raw.assert_problem(files.ask("POST", "/in", op="move", to="/no/such/place"), 404, "not_found")


def test_what_is_moved_to_another_file_system_is_the_same_there(files, instance):
    instance.exec("mkdir -p /tree/a; echo x > /tree/a/file; chmod 640 /tree/a/file; ln -s file /tree/a/link")
    before = files.stat("/tree/a/file")
    assert files.ask("POST", "/tree", op="move", to="/dev/shm/tree").status == 200
    after = files.stat("/dev/shm/tree/a/file")
    assert {**after, "path": before["path"]} == before
    assert files.stat("/dev/shm/tree/a/link")["target"] == "file"
    assert files.get("/tree", stat=True).status == 404
    assert files.names("/dev/shm") == ["tree"]


def test_a_directory_of_the_image_is_moved_whole_or_not_at_all(files):
    names = files.names("/etc")
    answer = files.ask("POST", "/etc", op="move", to="/other")
    if answer.status == 200:
        assert files.names("/other") == names
        assert "etc" not in files.names("/")
    else:
        # The engine mounts files of its own there.
        raw.assert_problem(answer, 409, "conflict")
        assert files.names("/etc") == names
        assert "other" not in files.names("/")


def test_what_is_removed_is_gone(files, instance):
    instance.exec("mkdir -p /d/e; touch /d/e/f; ln -s /d /l; mkdir /empty")
    raw.assert_problem(files.ask("DELETE", "/d"), 409, "conflict")
    assert files.ask("DELETE", "/l", recursive=True).status == 204
    assert files.names("/d") == ["e"]
    assert files.ask("DELETE", "/empty").status == 204
    assert files.ask("DELETE", "/d", recursive=True).status == 204
    raw.assert_problem(files.ask("DELETE", "/d", recursive=True), 404, "not_found")
    raw.assert_problem(files.ask("DELETE", "/", recursive=True), 422, "invalid_request")
    assert instance.exec("true").ok


def test_a_user_may_what_it_may(files, instance, has_users):
    if not has_users:
        raw.assert_problem(files.put("/tmp/x", b"", user="4000"), 422, "invalid_request")
        return
    instance.exec("echo s > /secret; chmod 600 /secret; mkdir -m 777 /open; mkdir -m 755 /shut; touch /open/roots")
    mine = files.put("/open/file", b"x", user="4000:4001", mode="0600")
    assert (mine.status, mine.json["uid"], mine.json["gid"], mine.json["owner"]) == (201, 4000, 4001, None), mine
    for refused in (
        files.get("/secret", user="4000"),
        files.put("/secret", b"x", user="4000"),
        files.put("/shut/file", b"x", user="4000"),
        files.put("/open/other", b"x", user="4000", owner="0"),
        files.ask("DELETE", "/secret", user="4000"),
        files.ask("POST", "/shut/d", op="mkdir", user="4000"),
        files.put("/proc/x", b""),
    ):
        assert refused.status in (403, 404), refused
    given = files.put("/given", b"x", owner="4000:4001", mode="4755")
    assert (given.json["uid"], given.json["gid"], given.json["mode"]) == (4000, 4001, "4755")
    assert files.put("/given", b"y").json == {**files.stat("/given"), "uid": 4000, "gid": 4001, "mode": "4755"}
    raw.assert_problem(files.get("/x", user="nobody-knows"), 422, "invalid_request")
    raw.assert_problem(files.put("/x", b"", owner="nobody-knows"), 422, "invalid_request")


def test_what_is_no_file_is_neither_read_nor_written_nor_waited_for(files, instance):
    instance.exec("mkfifo /fifo; ln -s loop /loop; mkdir /dir")
    for path in ("/fifo", "/dev/zero", "/dir", "/loop", "/etc/passwd/x", "/" + "x" * 300):
        raw.assert_problem(files.get(path), 422, "invalid_request")
    for path in ("/fifo", "/dev/null", "/dir", "/dir/", "/loop", "/etc/passwd/x"):
        raw.assert_problem(files.put(path, b"x"), 422, "invalid_request")
    for path in ("/fifo", "/dev/zero", "/loop", "/etc/passwd"):
        raw.assert_problem(files.get(path, list=True), 422, "invalid_request")
        raw.assert_problem(files.put(path, archive(), tar=True), 409, "conflict")
    raw.assert_problem(files.get("/nothing"), 404, "not_found")
    assert files.stat("/fifo")["type"] == "fifo"


def test_what_is_asked_wrongly_is_refused_by_name(files):
    for answer, name in (
        (files.ask("GET", None), "path"),
        (files.get(""), "path"),
        (files.get(b"/a\0b"), "path"),
        (files.get("/" + "x/" * 2500), "path"),
        (files.get("/", stat=True, list=True), "list"),
        (files.get("/", list="yes"), "list"),
        (files.get("/", list=True, limit=0), "limit"),
        (files.get("/", list=True, cursor="x"), "cursor"),
        (files.get("/", limit=3), "limit"),
        (files.get("/", recursive=True), "recursive"),
        (files.get("/", user="a b"), "user"),
        (files.put("/x", b"", mode="9"), "mode"),
        (files.put("/x", b"", tar=True, mode="0644"), "mode"),
        (files.ask("POST", "/x"), "op"),
        (files.ask("POST", "/x", op="copy"), "op"),
        (files.ask("POST", "/x", op="move"), "to"),
        (files.ask("POST", "/x", op="mkdir", to="/y"), "to"),
        (files.ask("DELETE", "/x", force=True), "force"),
    ):
        problem = raw.assert_problem(answer, 422, "invalid_request")
        assert name in problem["detail"], problem
    refused = files.ask("PUT", "/x", b"x", {"content-encoding": "gzip"})
    raw.assert_problem(refused, 415, "unsupported_media_type")
    assert files.get("/x").status == 404
    raw.assert_problem(files.ask("PATCH", "/x"), 405, "method_not_allowed")
    raw.assert_problem(Files(files.url, "ins-0000000000000000").get("/x"), 404, "not_found")


@pytest.mark.parametrize("kind", ["application/json", "text/html", "multipart/form-data; boundary=x"])
def test_the_content_type_says_nothing(files, kind):
    assert files.ask("PUT", "/file", b"{not json", {"content-type": kind}).status == 201
    assert files.read("/file") == b"{not json"


def test_an_archive_brings_all_back(files, instance):
    instance.exec(
        "mkdir -p /src/a/b /src/empty; cd /src; echo one > a/file; ln a/file a/b/hard; ln -s ../file a/b/soft; "
        "mkfifo pipe; chmod 751 a; chmod 4640 a/file; touch -d @1000000000 a; head -c 300000 /dev/urandom > big; "
        f"mkdir {'n' * 120}; echo x > {'n' * 120}/{'m' * 120}"
    )
    packed = files.get("/src", tar=True)
    assert (packed.status, packed.headers["content-type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(packed.body)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members["a/file"].islnk() != members["a/b/hard"].islnk()
    assert members["a/b/soft"].linkname == "../file"
    assert members["a"].mtime == 1_000_000_000
    done = files.put("/dst/new", packed.body, tar=True)
    assert done.status == 200, done
    assert done.json["bytes"] >= 300_000
    same = (
        "cd {0}; find . ! -name pipe | sort | while read f; do stat -c '%n %f %s %Y %N' \"$f\"; done; "
        "sha256sum big a/file"
    )
    listed = [instance.exec(same.format(place)).stdout for place in ("/src", "/dst/new")]
    # The root of each has its own time of change after things were made in it, but for the one that was unpacked.
    assert listed[0].splitlines()[1:] == listed[1].splitlines()[1:]
    assert instance.exec("test /dst/new/a/file -ef /dst/new/a/b/hard && test -p /dst/new/pipe").ok
    single = files.get("/src/a/file", tar=True)
    with tarfile.open(fileobj=io.BytesIO(single.body)) as tar:
        assert [(member.name, member.size) for member in tar.getmembers()] == [("file", 4)]
    raw.assert_problem(files.get("/nothing", tar=True), 404, "not_found")
    raw.assert_problem(files.get("/src/pipe", tar=True), 422, "invalid_request")


@pytest.mark.parametrize(
    "entries",
    [
        [("../escaped", b"x")],
        [("a/../../escaped", b"x")],
        [("/escaped", b"x")],
        [("l", link(tarfile.SYMTYPE, "/")), ("l/escaped", b"x")],
        [("l", link(tarfile.SYMTYPE, "..")), ("l/escaped", b"x")],
        [("l", link(tarfile.SYMTYPE, "/")), ("l/escaped", None)],
        [("escaped", link(tarfile.LNKTYPE, "../secret"))],
        [("l", link(tarfile.SYMTYPE, "..")), ("escaped", link(tarfile.LNKTYPE, "l/secret"))],
    ],
    ids=range(8),
)
def test_an_archive_stays_in_its_directory(files, instance, entries):
    instance.exec("mkdir -p /jail/in; echo s > /jail/secret")
    raw.assert_problem(files.put("/jail/in", archive(("first", b"1"), *entries), tar=True), 422, "invalid_request")
    assert instance.exec("ls -A /jail; ls -d /escaped /jail/in/escaped 2>/dev/null").stdout == "in\nsecret\n"
    assert files.read("/jail/in/first") == b"1"


def test_what_is_no_archive_is_refused(files):
    whole = archive(("file", b"x" * 5000))
    for body in (b"rubbish" * 1000, whole[:3000], b"\x1f\x8b" + whole):
        raw.assert_problem(files.put("/in", body, tar=True), 422, "invalid_request")
    assert files.put("/in", b"", tar=True).json == {"files": 0, "bytes": 0}


def test_a_watch_tells_what_happens(files, instance):
    instance.exec("mkdir -p /w/sub; touch /w/old")
    with watch(files, "/w") as events:
        instance.exec(
            "echo x > /w/new; mv /w/new /w/name; rm /w/name; mkdir /w/dir; touch /w/sub/unseen; mv /w/old /gone"
        )
        told = events.until(event="deleted", path="/w/old")
        assert {"event": "created", "path": "/w/new", "type": None} in [{**event, "type": None} for event in told]
        assert {"event": "moved", "path": "/w/name", "from": "/w/new", "type": None} in [
            {**event, "type": None} for event in told
        ]
        assert any((event["event"], event["path"]) == ("modified", "/w/new") for event in told)
        assert {"event": "deleted", "path": "/w/name", "type": None} in told
        assert {"event": "created", "path": "/w/dir", "type": "directory"} in told
        assert not [event for event in told if "unseen" in event["path"]]
        instance.exec("rm -rf /w")
        events.until(event="deleted", path="/w")
        last = events.next()
        assert (last["event"], last["code"]) == ("error", "not_found")
    raw.assert_problem(files.get("/nothing", watch=True), 404, "not_found")


def test_a_recursive_watch_tells_of_what_is_below(files, instance):
    instance.exec("mkdir -p /w/a/b")
    with watch(files, "/w", recursive=True) as events:
        instance.exec("touch /w/a/b/one")
        events.until(event="created", path="/w/a/b/one", type="file")
        instance.exec("mkdir -p /w/new/deep/er; echo x > /w/new/deep/er/file")
        events.until(path="/w/new/deep/er/file")
        instance.exec("mv /w/new /w/moved; touch /w/moved/deep/two")
        told = events.until(event="created", path="/w/moved/deep/two")
        assert {"event": "moved", "path": "/w/moved", "from": "/w/new", "type": "directory"} in told
        instance.exec("mv /w/moved /away; touch /away/deep/unseen /w/last")
        told = events.until(event="created", path="/w/last")
        assert not [event for event in told if "unseen" in event["path"]]


def test_a_watch_comes_as_server_sent_events_too(files, instance):
    with files.open("GET", "/tmp", watch=True) as connection:
        connection.endheaders()
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        assert response.readline() == b"event: ready\n"
        instance.exec("touch /tmp/file")
        while response.readline() != b"event: created\n":
            pass
        assert b'"path":"/tmp/file"' in response.readline()


def test_one_that_does_not_run_has_no_files_to_show(tenant, backend, files, instance):
    files.put("/kept", b"x")
    if has_cgroups(tenant, backend.name):
        instance.pause()
        raw.assert_problem(files.get("/kept"), 409, "conflict")
        instance.resume()
        assert files.read("/kept") == b"x"
    instance.stop(grace_ms=0)
    raw.assert_problem(files.get("/kept"), 409, "conflict")
    raw.assert_problem(files.put("/kept", b"y"), 409, "conflict")
    instance.start()
    assert files.read("/kept") == b"x"


def test_a_look_resumes_one_that_is_paused_where_it_was_made_so(tenant, backend):
    if not has_cgroups(tenant, backend.name):
        return
    with tenant.instances.create(**backend.create, auto_resume=True) as instance:
        files = Files(tenant.base_url, instance.id)
        files.put("/file", b"x")
        instance.pause()
        assert files.read("/file") == b"x"
        assert instance.refresh().status == "running"


def test_many_at_once_do_not_disturb_each_other(files):
    wrong: list[object] = []

    def go(number: int) -> None:
        for turn in range(5):
            content = f"{number} {turn} ".encode() * 20_000
            if files.put(f"/c/{number}", content).status >= 300 or files.read(f"/c/{number}") != content:
                wrong.append((number, turn))

    threads = [threading.Thread(target=go, args=(number,)) for number in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []
    assert files.names("/c") == sorted(str(number) for number in range(16))
