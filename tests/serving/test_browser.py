"""The demo page in headless Chromium, on a desktop and on a phone, with a photograph."""

import shutil
import socket
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.analysis import token_maps
from keras_tokenlearner.data import decode_image, fit_image
from keras_tokenlearner.serving.kserve_server import page_app
from keras_tokenlearner.serving.page.loaded import LoadedPage
from tests.serving.browser import browser

pytestmark = [pytest.mark.once("torch"), pytest.mark.peers]

DESKTOP, PHONE = (1280, 800), (390, 844)
DONE = "!document.querySelector('.busy') && document.getElementById('times').innerText.match(/\\d/)"


def photograph():
    """Return the path of a JPEG photograph of 640 x 427 pixels, which scikit-learn includes."""
    import sklearn

    return Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg"


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    plain = kt.create_model("vit_pico8", classes=10, input_shape=(48, 64, 3))
    model = kt.retrofit(plain, at=1, num_tokens=8)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    model.class_names = [f"<b>class</b> {index}" for index in range(10)]
    return model


@pytest.fixture(scope="module")
def address(model):
    """The address of the page of a model."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server is KServe")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(page_app(LoadedPage(model)), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed")
    pytest.importorskip("websockets", reason="Chromium is not installed, nor websockets")
    with browser(program, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def tab(chromium):
    """A browser tab, which must load nothing from other servers and report no error."""
    chromium.events.clear()
    yield chromium
    chromium.value("1")  # reads all events so far
    bad = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [event for event in chromium.events if event["method"] in bad] == []


def text(tab, selector):
    return tab.value(f"document.querySelector('{selector}').innerText")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_demo_page_shows_the_best_class_of_a_photograph_and_fits_the_window(
    tab, address, model, size
):
    tab.open(address, *size)
    tab.choose("#file", photograph())
    tab.wait(DONE)
    pixels = fit_image(decode_image(photograph()), (48, 64, 3))[None].astype("float32")
    best = int(np.argmax(model.predict(pixels, verbose=0)))
    # Markup in a class name is shown as text.
    assert text(tab, "#classes .name") == f"<b>class</b> {best}"
    assert tab.value("document.querySelectorAll('#classes b').length") == 0
    assert tab.value("document.querySelectorAll('#choices input').length") == 8 + 2
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    assert f"<b>class</b> {best}" in text(tab, "#status")
    urls = [
        event["params"]["request"]["url"]
        for event in tab.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert urls and all(url.startswith(address) for url in urls)


def test_demo_page_map_is_bright_at_the_positions_of_large_weights(tab, address, model):
    tab.open(address, *DESKTOP)
    tab.drop(photograph(), 400, 300)  # inside the area that accepts files
    tab.wait(DONE)
    pixels = fit_image(decode_image(photograph()), (48, 64, 3))[None].astype("float32")
    maps = token_maps(model, pixels)[0]
    for token in (0, 5):
        tab.value(f"document.querySelectorAll('#choices input')[{token + 1}].click()")
        flat = maps[..., token]
        places = [np.unravel_index(found(flat), flat.shape) for found in (np.argmax, np.argmin)]
        high, low = (_brightness(tab, place, maps.shape) for place in places)
        assert high > low + 60
        assert text(tab, "#caption").startswith(f"Token {token + 1}: most weight in the ")


def _brightness(tab, place, grid):
    """Return the mean of red and green in the middle of a cell of the model's crop."""
    left, width = (1 - 427 * 4 / 3 / 640) / 2, 427 * 4 / 3 / 640  # 4:3 of 640 x 427
    x, y = left + width * (place[1] + 0.5) / grid[1], (place[0] + 0.5) / grid[0]
    return tab.value(
        "(() => { const view = document.getElementById('view');"
        "const copy = new OffscreenCanvas(view.width, view.height);"
        "const context = copy.getContext('2d', {willReadFrequently: true});"
        "context.drawImage(view, 0, 0);"
        f"const at = [{x} * view.width, {y} * view.height].map(Math.floor);"
        "const [red, green] = context.getImageData(...at, 1, 1).data;"
        "return (red + green) / 2; })()"
    )


def test_demo_page_keyboard_reaches_every_control_and_moves_the_slider(tab, address):
    tab.open(address, *DESKTOP)
    tab.choose("#file", photograph())
    tab.wait(DONE)
    tab.value("document.activeElement.blur()")
    order = []
    for _ in range(4):
        tab.press("Tab")
        order.append(tab.value("document.activeElement.id || document.activeElement.name"))
    assert order == ["file", "camera", "map", "tokens"]
    tab.press("Home")
    assert tab.value("document.activeElement.ariaValueText ?? ''") == "1 token"
    tab.wait("document.querySelectorAll('#choices input').length === 1 + 2")
    tab.value("document.querySelector('#choices input').focus()")
    tab.press("ArrowRight")
    assert text(tab, "#caption").startswith("Token 1")


def test_demo_page_camera_stops_after_escape_and_classifies_a_taken_picture(tab, address):
    tab.open(address, *PHONE)
    for key in ("Escape", "Enter"):
        tab.value("document.getElementById('camera').focus()")
        tab.press("Enter")
        tab.wait("document.activeElement.id === 'take' && video.videoWidth > 0")
        tab.press(key)
        tab.wait("video.hidden")
        assert tab.value("document.activeElement.id") == "camera"
    tab.wait(DONE)
    assert tab.value("document.getElementById('view').width") > 100


def test_demo_page_shows_the_newest_picture_also_if_an_older_one_is_decoded_later(
    tab, address, tmp_path
):
    image_module = pytest.importorskip("PIL.Image", reason="writes and reads the image files")
    image_module.new("RGB", (40, 20), "red").save(tmp_path / "small.png")
    tab.open(address, *DESKTOP)
    tab.value(
        "(() => { const decode = createImageBitmap; window.createImageBitmap = async (file) => {"
        "if (file.name === 'flower.jpg') await new Promise((go) => (window.decodeLate = go));"
        "return decode(file); }; })()"
    )
    tab.choose("#file", photograph())
    tab.wait("Boolean(window.decodeLate)")
    tab.choose("#file", tmp_path / "small.png")
    tab.wait(DONE)
    tab.value("decodeLate(), new Promise((done) => setTimeout(done, 500))")
    assert tab.value("document.getElementById('view').height") == 1200 / 2


@pytest.mark.parametrize("pending", ["permission", "video"])
def test_demo_page_camera_started_twice_leaves_no_camera_on(tab, address, pending):
    """The second click arrives before the permission, or before the video plays."""
    tab.open(address, *PHONE)
    tab.value(
        "(() => { const media = navigator.mediaDevices, get = media.getUserMedia.bind(media);"
        "window.tracks = []; media.getUserMedia = async (wanted) => { const found = await "
        "get(wanted); tracks.push(...found.getTracks()); return found; }; })()"
    )
    tab.value(
        "(() => { const play = video.play.bind(video); window.plays = 0;"
        f"const waits = {int(pending == 'video')};"
        "video.play = async () => { if (++plays <= waits) await new Promise((go) => "
        "(window.playLate = go)); return play(); }; window.playLate = () => {}; })()"
    )
    tab.value("camera.click()" if pending == "video" else "camera.click(), camera.click()")
    if pending == "video":
        tab.wait("plays === 1")
        tab.value("camera.click()")
    tab.wait("tracks.length === 2 && !video.hidden && video.videoWidth > 0")
    tab.value("playLate()")
    assert sorted(tab.value("tracks.map((track) => track.readyState)")) == ["ended", "live"]
    tab.press("Escape")
    assert tab.value("tracks.every((track) => track.readyState === 'ended')")


def test_demo_page_controls_have_names_for_screen_readers(tab, address):
    tab.open(address, *PHONE)
    tab.choose("#file", photograph())
    tab.wait(DONE)
    names = tab.names()
    controls = {"button", "slider", "radio", "image", "img", "group", "combobox", "region"}
    assert [role for role, name in names if role in controls and not name] == []
    assert {("slider", "Number of tokens"), ("radio", "Token 8")} <= set(names)
    assert {"status", "main", "banner", "figure"} <= {role for role, _ in names}


@pytest.mark.parametrize("content", [b"no image", b"\xff\xd8\xff\xe0 cut off"])
def test_demo_page_given_a_file_that_is_no_image_shows_an_alert_and_no_classes(
    tab, address, content, tmp_path
):
    (tmp_path / "x.jpg").write_bytes(content)
    tab.open(address, *DESKTOP)
    tab.choose("#file", tmp_path / "x.jpg")
    tab.wait("document.getElementById('error').innerText")
    assert "cannot read this file" in text(tab, "#error")
    assert text(tab, "#classes") == "Nothing yet"


def test_demo_page_in_dark_mode_has_a_dark_background(tab, address):
    grounds = []
    for dark in (False, True):
        tab.open(address, *DESKTOP, dark)
        colour = tab.value("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(part) for part in colour[4:-1].split(",")))
    assert grounds[0] > 600 and grounds[1] < 100


def test_demo_page_without_its_server_shows_an_error(tab, address):
    tab.open(address, *DESKTOP)
    tab.value("window.fetch = () => Promise.reject(new TypeError('gone')); 0")
    tab.choose("#file", photograph())
    tab.wait("document.getElementById('error').innerText")
    assert "Is it running?" in text(tab, "#error")
