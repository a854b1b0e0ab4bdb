"""What versions mean: spellings, releases, tags and branches that move, and what counts when nobody answers."""

import asyncio
import base64
import shutil
import threading
from types import SimpleNamespace

import pytest

from dataset_client.protocol import VERSION_PATTERN
from dataset_server.errors import EnvironmentFailedError, UnknownVersionError
from dataset_server.references import References
from dataset_server.releases import latest_release, same_release
from dataset_server.repositories import Repository, protocol, without_credentials
from dataset_server.sources import resolve_again
from tests.server.tiny_packages import settings, write_source, write_wheel
from tests.support import git

HOSTILE = [
    "--upload-pack=touch owned",
    "-c",
    "--index-url=http://127.0.0.1:9/",
    "1.0 --index-url http://127.0.0.1:9/",
    "1.0\n--index-url http://127.0.0.1:9/",
    "1.0 @ http://127.0.0.1:9/x.whl",
    "1.0; import os",
    "@ file:///etc/passwd",
    "git+https://127.0.0.1:9/x@v1",
    "https://127.0.0.1:9/x",
    "ext::sh -c touch% owned",
    "../main",
    "refs/heads/main",
    "heads/main",
    "*",
    "v*",
    "main^{commit}",
    "main~1",
    "HEAD",
    "@{-1}",
    "1.*",
    ">=0",
    "",
]


@pytest.mark.parametrize(
    ("spellings", "release"),
    [
        (["1", "1.0", "v1.0", "1.0.0", "V1.0.0"], "1"),
        (["1.0rc1", "1.0.0-rc.1", "v1.0c1"], "1rc1"),
        (["1.0.post1", "1-1"], "1.post1"),
        (["1.0+a.b", "1.0+A-b"], "1+a.b"),
        (["1!2.0", "1!2"], "1!2"),
        (["10", "10.0"], "10"),
        (["main", "latest", "1.0 beta gamma", "", "1.0/2"], None),
    ],
)
def test_spellings_of_one_release(spellings, release):
    assert {same_release(spelling) for spelling in spellings} == {release}


def test_the_latest_release():
    assert latest_release(["v1.9", "v1.10", "1.2", "main", "v2.0rc1", "v3.dev1", "release-9", "latest"]) == "v1.10"
    assert latest_release(["v2.0rc1", "nightly"]) is None


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/x.git", "https"),
        ("ssh://git@example.org/x.git", "ssh"),
        ("git@example.org:x.git", "ssh"),
        ("file:///srv/x", "file"),
        ("/srv/x", "file"),
        ("http://example.org/x.git", None),
        ("git://example.org/x.git", None),
        ("ext::sh -c true", None),
        ("fd::3", None),
    ],
)
def test_protocols(url, name):
    if name:
        assert protocol(url) == name
    else:
        with pytest.raises(EnvironmentFailedError, match="https, ssh or file"):
            protocol(url)


def test_credentials_are_no_arguments(monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    address, environment = without_credentials("https://me:s%40cret@example.org:8443/a/b.git")
    assert address == "https://example.org:8443/a/b.git"
    assert environment == {
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_2": f"http.{address}.extraHeader",
        "GIT_CONFIG_VALUE_2": "Authorization: Basic " + base64.b64encode(b"me:s@cret").decode(),
    }
    for plain in ("https://example.org/a.git", "ssh://git@example.org/a.git", "git@example.org:a.git", "/a/b.git"):
        assert without_credentials(plain) == (plain, {})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A repository: tags v1.0 and v1.1, a pre-release, and a branch beyond them."""
    root = tmp_path_factory.mktemp("original")
    git("init", "--quiet", "--initial-branch", "main", cwd=root)
    write_source(root)
    for number, tag in enumerate(("v1.0", "v1.1", "v2.0rc1", None)):
        (root / "number").write_text(str(number))
        git("add", "-A", cwd=root)
        git("commit", "--quiet", "-m", str(number), cwd=root)
        if tag:
            git("tag", *(["-a", "-m", tag] if number else []), tag, cwd=root)
    return root


@pytest.fixture
def repository(original, tmp_path):
    return shutil.copytree(original, tmp_path / "repository")


def commit(root, name: str) -> str:
    return git("rev-parse", f"{name}^{{commit}}", cwd=root)


def references(tmp_path, source, *, installed=(), **more):
    """A function that resolves versions of ``tiny``; those in ``installed`` count as such."""
    given = settings(tmp_path, source, **more)
    given.environments.mkdir(parents=True, exist_ok=True)

    async def is_installed(resolved):
        return resolved.version in installed

    known = References(given, is_installed)

    async def resolve(version, client=""):
        return await known.resolve("tiny", given.sources["tiny"], version, client)

    return resolve


async def test_what_tags_branches_and_commits_mean(repository, tmp_path):
    resolve = references(tmp_path, f"git+file://{repository}@{{version}}")
    for version in ("v1.0", "v1.1", "main"):
        assert (await resolve(version)).version == commit(repository, version)
    assert (await resolve("latest")).version == commit(repository, "v1.1")
    nowhere = "1" * 40
    assert (await resolve(nowhere)).version == nowhere, "whether it is there turns out when it is fetched"
    with pytest.raises(UnknownVersionError):
        await resolve("v9")


async def test_what_moves_is_asked_for_anew(repository, tmp_path, caplog):
    source = f"git+file://{repository}@{{version}}"
    slow, quick = references(tmp_path, source), references(tmp_path, source, reference_seconds=0)
    old = {version: (await slow(version)).version for version in ("main", "v1.1", "latest")}
    (repository / "number").write_text("9")
    git("commit", "--quiet", "-am", "nine", cwd=repository)
    git("tag", "--force", "-a", "-m", "moved", "v1.1", cwd=repository)
    assert {version: (await slow(version)).version for version in old} == old, "remembered for a minute"
    with caplog.at_level("INFO"):
        assert {(await quick(version)).version for version in old} == {commit(repository, "main")}
    assert f"version main means {commit(repository, 'main')} now, before {old['main']}" in caplog.text
    git("tag", "v1.2", "v1.0", cwd=repository)
    assert (await quick("latest")).version == commit(repository, "v1.0")


async def test_one_question_tells_all_tags(repository, tmp_path, monkeypatch):
    asked = []
    listing = Repository.references

    async def references_of(self, **more):
        asked.append(self.url)
        return await listing(self, **more)

    monkeypatch.setattr(Repository, "references", references_of)
    resolve = references(tmp_path, f"git+file://{repository}@{{version}}")
    for version in ("v1.0", "v1.1", "main", "latest"):
        await resolve(version)
    for number in range(3):
        with pytest.raises(UnknownVersionError):
            await resolve(f"nothing-{number}")
    assert len(asked) == 1


async def test_without_the_repository_the_last_known_meaning_counts(repository, tmp_path, caplog):
    source = f"git+file://{repository}@{{version}}"
    before = references(tmp_path, source)
    main, tag = await before("main"), await before("v1.0")
    assert main.last_known is None
    repository.rename(tmp_path / "elsewhere")
    after = references(tmp_path, source, installed={main.version}, reference_seconds=0)
    again = await after("main")
    assert again == main
    assert again.last_known
    assert "its last known meaning" in caplog.text
    for version in ("v1.0", "v1.1"):  # known but not installed; never known
        with pytest.raises(EnvironmentFailedError, match="no_repository"):
            await after(version)
    assert (await after(tag.version)).version == tag.version, "a commit needs nobody"
    (tmp_path / "elsewhere").rename(repository)
    assert (await after("main")).last_known is None
    git("tag", "--delete", "v1.0", cwd=repository)
    with pytest.raises(UnknownVersionError):
        await after("v1.0")


async def test_one_mirror_serves_all_commits(repository, tmp_path):
    root = tmp_path / "environments"
    root.mkdir()
    mirrored = Repository(f"file://{repository}", root, 60)
    first = await mirrored.checkout(commit(repository, "v1.0"), "", tmp_path / "one")
    assert (first / "number").read_text() == "0"
    away = repository.rename(tmp_path / "elsewhere")
    second = await mirrored.checkout(commit(away, "main"), "", tmp_path / "two")
    assert (second / "number").read_text() == "3"
    assert git("describe", "--tags", "--abbrev=0", cwd=second) == "v2.0rc1", "tools that ask git find the tags"
    away.rename(repository)
    (repository / "number").write_text("8")
    git("checkout", "--quiet", "--detach", cwd=repository)
    git("commit", "--quiet", "-am", "on no branch", cwd=repository)
    lonely = commit(repository, "HEAD")
    git("checkout", "--quiet", "main", cwd=repository)
    git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=repository)
    third = await mirrored.checkout(lonely, "", tmp_path / "three")
    assert (third / "number").read_text() == "8"
    with pytest.raises(UnknownVersionError):
        await mirrored.checkout("1" * 40, "", tmp_path / "four")
    with pytest.raises(EnvironmentFailedError, match=r"no pyproject.toml in '\.\.'"):
        await mirrored.checkout(commit(repository, "v1.0"), "..", tmp_path / "five")
    # A mirror that has rotted is found out, and made again.
    shutil.rmtree(mirrored.mirror / "objects")
    with pytest.raises(EnvironmentFailedError):
        await mirrored.checkout(commit(repository, "v1.0"), "", tmp_path / "six")
    await mirrored.checkout(commit(repository, "v1.0"), "", tmp_path / "seven")
    assert [path.name for path in root.iterdir()] == [mirrored.mirror.name]


async def test_a_mirror_that_is_broken_goes_while_others_are_served(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr("dataset_server.repositories.remove_tree", lambda _: threads.append(threading.current_thread()))
    mirrored = Repository(f"file://{tmp_path}/nowhere", tmp_path / "environments", 60)
    mirrored.mirror.mkdir(parents=True)
    with pytest.raises(EnvironmentFailedError):
        await mirrored.checkout("1" * 40, "", tmp_path / "copy")
    assert threads
    assert threading.main_thread() not in threads


async def test_links_out_of_a_repository_are_not_followed(repository, tmp_path):
    (tmp_path / "environments").mkdir()
    (tmp_path / "pyproject.toml").write_text("of the server")
    for name, target in (("inside", "../pyproject.toml"), ("outside", str(tmp_path / "pyproject.toml"))):
        (repository / name).mkdir()
        (repository / name / "pyproject.toml").symlink_to(target)
    git("add", "--all", cwd=repository)
    git("commit", "--quiet", "-m", "links", cwd=repository)
    linked, mirrored = commit(repository, "HEAD"), Repository(f"file://{repository}", tmp_path / "environments", 60)
    assert (await mirrored.checkout(linked, "inside", tmp_path / "one")).name == "inside"
    with pytest.raises(EnvironmentFailedError, match=r"no pyproject.toml in 'outside'"):
        await mirrored.checkout(linked, "outside", tmp_path / "two")


async def test_nothing_in_a_repository_is_run(repository, tmp_path, monkeypatch):
    owned = tmp_path / "owned"
    (repository / ".gitmodules").write_text(f'[submodule "x"]\n path = x\n url = file://{tmp_path}/other\n')
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / ".lfsconfig").write_text("[lfs]\n url = http://127.0.0.1:9/\n")
    git("add", "-A", cwd=repository)
    git("commit", "--quiet", "-m", "traps", cwd=repository)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-merge"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {owned}\n")
        (hooks / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[core]\n hooksPath = {hooks}\n[submodule]\n recurse = true\n[init]\n templateDir = {tmp_path}\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    (tmp_path / "environments").mkdir()
    mirrored = Repository(f"file://{repository}", tmp_path / "environments", 60)
    await mirrored.checkout(commit(repository, "main"), "", tmp_path / "copy")
    assert not owned.exists()


@pytest.mark.parametrize("kind", ["git", "package", "path"])
async def test_versions_are_never_addresses_nor_options(kind, original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    sources = {
        "git": f"git+file://{original}@{{version}}",
        "package": "tiny-handlers=={version}",
        "path": str(original),
    }
    resolve = references(tmp_path, sources[kind])
    for version in HOSTILE:
        assert version == "HEAD" or not VERSION_PATTERN.fullmatch(version), "refused before it comes so far"
        with pytest.raises(UnknownVersionError):
            await resolve(version)
    assert not (tmp_path / "owned").exists()
    assert [path.name for path in (tmp_path / "data" / "environments").iterdir()] == []


# Packages


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch):
    for version in ("1.0.0", "1.1", "2.0rc1"):
        write_wheel(tmp_path / "wheelhouse", "tiny-handlers", version)
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheelhouse"))
    return tmp_path / "wheelhouse"


async def test_releases_are_named_as_the_index_names_them(tmp_path, wheelhouse):
    resolve = references(tmp_path, "tiny-handlers=={version}")
    found = [await resolve(version) for version in ("1.0", "v1.0", "1.0.0", "1")]
    assert {(one.version, one.fingerprint) for one in found} == {("1.0.0", "tiny-handlers==1.0.0")}
    assert (await resolve("latest")).version == "1.1", "no pre-release"
    assert (await resolve("2.0.rc1")).version == "2.0rc1"
    with pytest.raises(UnknownVersionError, match="tiny-handlers==9"):
        await resolve("9")
    # From now on without an index: releases need none, the newest is the last known.
    shutil.rmtree(wheelhouse)
    later = references(tmp_path, "tiny-handlers=={version}", installed={"1.1"})
    assert (await later("v1.0")) == found[0]
    newest = await later("latest")
    assert (newest.version, newest.last_known is not None) == ("1.1", True)
    with pytest.raises(EnvironmentFailedError):
        await later("1.2")


@pytest.fixture
def index(monkeypatch):
    """An index that answers when it is told to, and what it was asked; it has a release 1.0 alone."""
    found = SimpleNamespace(asked=[], may_answer=asyncio.Event())

    async def ask(_source, version, *_):
        found.asked.append(version)
        await found.may_answer.wait()
        if version != "1.0":
            raise UnknownVersionError(f"there is no {version}")
        return version

    monkeypatch.setattr("dataset_server.references.ask", ask)
    return found


async def test_a_client_that_asks_for_much_keeps_nobody_waiting(tmp_path, index):
    resolve = references(tmp_path, "tiny-handlers=={version}")
    crowd = [asyncio.create_task(resolve(f"0.0.{number}", "crowd")) for number in range(1, 9)]
    crowd.append(asyncio.create_task(resolve("1.0", "crowd")))
    while len(index.asked) < 2:
        await asyncio.sleep(0.001)
    other = asyncio.create_task(resolve("1.0", "other"))
    while "1.0" not in index.asked:
        await asyncio.sleep(0.001)
    assert len(index.asked) == 3, "two of the crowd's, and that"
    index.may_answer.set()
    assert (await other).version == "1.0"
    found = await asyncio.gather(*crowd, return_exceptions=True)
    assert [type(one) for one in found[:-1]] == 8 * [UnknownVersionError]
    assert found[-1].version == "1.0"
    assert index.asked.count("1.0") == 1, "the second finds it answered"


async def test_what_is_no_version_is_remembered_for_a_while(tmp_path, index, monkeypatch):
    monkeypatch.setattr("dataset_server.references._REMEMBERED", 2)
    index.may_answer.set()
    resolve = references(tmp_path, "tiny-handlers=={version}")
    forgetful = references(tmp_path, "tiny-handlers=={version}", reference_seconds=0)
    for _ in range(2):
        for ask_for in (resolve, forgetful):
            with pytest.raises(UnknownVersionError, match="there is no 9"):
                await ask_for("9")
    assert index.asked == 3 * ["9"]
    for version in ("10", "11", "9"):
        with pytest.raises(UnknownVersionError):
            await resolve(version)
    assert index.asked == [*3 * ["9"], "10", "11", "9"], "only the latest are"


# Folders


async def test_a_folder_means_its_content(tmp_path, monkeypatch):
    source = write_source(tmp_path / "source", version="1.0")
    resolve = references(tmp_path, str(source), reference_seconds=0)
    first = await resolve("1.0")
    assert [await resolve(version) for version in ("v1", "1.0.0", "latest")] == 3 * [first]
    assert resolve_again("tiny", first.source, first.version) == first
    (source / "more.py").write_text("x = 1\n")
    assert (await resolve("1.0")).version != first.version
    assert resolve_again("tiny", first.source, first.version) is None
    with monkeypatch.context() as patched:
        patched.delattr("dataset_server.sources.digest_folder")  # its files are not read for that
        with pytest.raises(UnknownVersionError, match="served at version 1.0 only"):
            await resolve("1.1")
    (source / "pyproject.toml").unlink()
    with pytest.raises(EnvironmentFailedError, match="cannot be read"):
        await resolve("1.0")
