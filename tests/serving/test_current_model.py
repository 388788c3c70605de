"""Versions of a served model that appear and disappear while the server runs."""

import asyncio
import shutil
import threading
from types import SimpleNamespace

import pytest

from keras_tokenlearner.serving import current_model
from keras_tokenlearner.serving.current_model import CurrentModel
from keras_tokenlearner.serving.kserve_server import _follow

pytestmark = pytest.mark.once("torch")


class Model:
    """A substitute for `ServedModel`: it answers with its version, and records its warm-up."""

    max_pixels = float("inf")

    def __init__(self, path):
        self.folder = current_model.newest_version(path)
        self.warm = None
        self.may_answer = threading.Event()
        if (self.folder / "broken").exists():
            raise ValueError("broken")

    def warm_up(self, max_rows, stopping):
        assert not stopping.is_set()
        self.warm = max_rows

    def answer(self, key, rows):
        assert self.may_answer.wait(10)
        return [self.folder.name] * len(rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(current_model, "ServedModel", Model)
    add(tmp_path, "1")
    return tmp_path


def add(folder, version, file="saved_model.pb"):
    (folder / version).mkdir(exist_ok=True)
    (folder / version / file).touch()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def add_broken(folder, current):
    """Add version 2, which cannot be loaded, and wait for its failure."""
    add(folder, "2", "broken")
    add(folder, "2")
    await until(lambda: current.failed)


def states(current):
    return [(found["version"], found["state"]) for found in current.status()]


def followed(current, check):
    async def run():
        following = asyncio.create_task(current.follow(0.005))
        try:
            await check()
        finally:
            following.cancel()

    asyncio.run(run())


def test_newer_model_version_answers_while_requests_to_the_older_version_finish(folder):
    current = CurrentModel(folder, 8)
    old = current.now

    async def check():
        waiting = asyncio.create_task(old.batcher.answer("key", "row"))
        add(folder, "2")
        await until(lambda: current.now is not old)
        assert current.now.model.warm == 8
        current.now.model.may_answer.set()
        assert await current.now.batcher.answer("key", "row") == "2"
        assert not waiting.done()
        old.model.may_answer.set()
        assert await waiting == "1"

    followed(current, check)
    assert states(current) == [("2", "AVAILABLE"), ("1", "END")]


def test_model_version_that_cannot_be_loaded_leaves_the_older_version_in_use(folder):
    current = CurrentModel(folder)

    async def check():
        await add_broken(folder, current)
        add(folder, "3")
        await until(lambda: current.now.version == "3")

    followed(current, check)
    assert states(current) == [("3", "AVAILABLE"), ("1", "END"), ("2", "END")]
    failed = current.status()[2]["status"]
    assert failed == {"error_code": "UNKNOWN", "error_message": "broken"}


def test_model_version_that_fails_the_check_leaves_the_older_version_in_use(folder):
    def check(model):
        if model.folder.name == "2":
            raise ValueError("no classifier")

    current = CurrentModel(folder, check=check)

    async def add_versions():
        add(folder, "2")
        await until(lambda: current.failed)
        assert current.now.version == "1"
        add(folder, "3")
        await until(lambda: current.now.version == "3")

    followed(current, add_versions)
    assert current.status()[2]["status"]["error_message"] == "no classifier"
    shutil.rmtree(folder / "3")
    with pytest.raises(ValueError, match="no classifier"):
        CurrentModel(folder, check=check)


def test_model_version_that_failed_to_load_is_tried_again_after_a_time(folder, monkeypatch):
    """A copy that fills a subfolder leaves the modification time of the version unchanged."""
    monkeypatch.setattr(current_model, "RETRY_SECONDS", 0.1)
    current = CurrentModel(folder)

    def load(path):
        if path == folder / "2" and not (path / "variables" / "data").exists():
            raise ValueError("incomplete")
        return Model(path)

    async def check():
        monkeypatch.setattr(current_model, "ServedModel", load)
        (folder / "2" / "variables").mkdir(parents=True)
        add(folder, "2")
        await until(lambda: current.failed)
        (folder / "2" / "variables" / "data").touch()
        await until(lambda: current.now.version == "2")

    followed(current, check)
    assert states(current) == [("2", "AVAILABLE"), ("1", "END")]


def test_model_folder_that_is_unreadable_for_a_time_is_watched_again(folder, monkeypatch):
    current, failures = CurrentModel(folder), []

    def unreadable(path):
        failures.append(path)
        raise OSError("the network is down")

    async def check():
        with monkeypatch.context() as patch:
            patch.setattr(current_model, "newest_version", unreadable)
            await until(lambda: failures)
        add(folder, "2")
        await until(lambda: current.now.version == "2")

    followed(current, check)
    assert states(current) == [("2", "AVAILABLE"), ("1", "END")]


def test_deleted_model_version_is_replaced_by_the_previous_version(folder):
    add(folder, "2")
    current = CurrentModel(folder)

    async def check():
        (folder / "2" / "saved_model.pb").unlink()
        await until(lambda: current.now.version == "1")

    followed(current, check)
    assert states(current) == [("1", "AVAILABLE"), ("2", "END")]


def test_failed_model_version_that_is_exported_again_is_loaded(folder):
    current = CurrentModel(folder)

    async def check():
        await add_broken(folder, current)
        shutil.rmtree(folder / "2")
        add(folder, "2")
        await until(lambda: current.now.version == "2")

    followed(current, check)
    assert states(current) == [("2", "AVAILABLE"), ("1", "END")]


def test_current_model_version_that_is_exported_again_is_reloaded(folder):
    current = CurrentModel(folder)
    old = current.now

    async def check():
        shutil.rmtree(folder / "1")
        add(folder, "1")
        await until(lambda: current.now is not old)

    followed(current, check)
    assert states(current) == [("1", "AVAILABLE")]


def test_server_of_the_folder_of_one_version_ignores_newer_versions(folder):
    current = CurrentModel(folder / "1")

    async def check():
        add(folder, "2")
        await asyncio.sleep(0.05)

    followed(current, check)
    assert states(current) == [("1", "AVAILABLE")]


def test_server_without_warm_up_runs_no_batch(folder):
    current = CurrentModel(folder, warms_up=False)
    current.warm_up()
    assert current.now.model.warm is None


def test_endpoint_is_ready_only_after_the_warm_up(folder):
    current, endpoint = CurrentModel(folder, 4), SimpleNamespace(ready=False)
    begun, may_end = threading.Event(), threading.Event()

    def warm_up(max_rows, stopping):
        begun.set()
        assert may_end.wait(10) and max_rows == 4

    current.now.model.warm_up = warm_up

    async def check():
        following = asyncio.create_task(_follow(endpoint, current))
        await until(begun.is_set)
        assert not endpoint.ready
        may_end.set()
        await until(lambda: endpoint.ready)
        following.cancel()

    asyncio.run(check())
