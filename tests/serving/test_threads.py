"""Threads that decode images: small images never wait for large images."""

import asyncio
import threading

import pytest

from keras_tokenlearner.serving.threads import DecodingThreads

pytestmark = pytest.mark.once("tensorflow")


def test_decoding_threads_decode_a_small_image_while_large_images_wait():
    release, started = threading.Event(), []
    threads = DecodingThreads(small=1, large=1, large_pixels=10)

    def large(number):
        started.append(number)
        assert release.wait(60)
        return number

    async def ask():
        waiting = [asyncio.ensure_future(threads.run(11, large, number)) for number in range(3)]
        assert await asyncio.wait_for(threads.run(10, len, "abc"), 60) == 3
        assert started in ([], [0])
        waiting[2].cancel()  # its client disconnected
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert (first, second, started) == (0, 1, [0, 1])
    assert isinstance(third, asyncio.CancelledError)
