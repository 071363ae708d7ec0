"""The one place that imports Docker's library, and it is slow to: imported when it is needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from aiodocker import Docker


class Client(Docker):
    """Any request of the Engine's API, where the library has methods for some of them."""

    async def ask(
        self, method: str, path: str, query: Mapping[str, str], body: object | None
    ) -> Any:
        """The decoded answer; empty text where there is nothing to say."""
        return await self._query_json(path, method, params=query, data=body)

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes]:
        """An answer that does not end, as its lines come; nothing but closing it ends the wait.

        The first one is empty: from then on nothing is missed.
        """
        async with self._query(path, params=query, timeout=None) as answer:
            try:
                yield b""
                async for line in answer.content:
                    yield line
            finally:
                answer.close()
