"""Threads that decode images in requests."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LARGE_PIXELS = 4_000_000

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class DecodingThreads:
    """Threads that decode small images, and fewer threads that decode large images.

    Requests with small images never wait for large images. Many large images decoded at once would
    fill the memory, so large images have few threads.

    Args:
        small: Integer, threads for images of at most `large_pixels`. Defaults to the number of
            CPUs, at most 8.
        large: Integer, threads for larger images. Defaults to half of the number of CPUs, at
            most 4.
        large_pixels: Integer, pixels above which an image is large.

    Example:

    >>> asyncio.run(DecodingThreads().run(100, max, 1, 2))
    2
    """

    def __init__(
        self, small: int | None = None, large: int | None = None, large_pixels: int = LARGE_PIXELS
    ) -> None:
        count = os.cpu_count() or 1
        self.small = ThreadPoolExecutor(small or min(8, count), thread_name_prefix="small")
        self.large = ThreadPoolExecutor(
            large or min(4, max(1, count // 2)), thread_name_prefix="large"
        )
        self.large_pixels = large_pixels

    async def run(
        self,
        pixels: int,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Decode an image by a function in one of the threads, and return the result.

        A cancelled call does not start if it still waits for a thread.

        Args:
            pixels: Integer, number of pixels of the image.
            function: Function that decodes the image.
            *arguments: Arguments of the function.
            **options: Keyword arguments of the function.
        """
        threads = self.large if pixels > self.large_pixels else self.small
        return await asyncio.wrap_future(threads.submit(function, *arguments, **options))
