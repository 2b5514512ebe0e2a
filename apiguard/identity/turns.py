"""New questions wait here: users take turns, so that one with many does not hold up the others."""

from __future__ import annotations

from collections import OrderedDict, deque


class Turns:
    """Keys by user, at most ``most`` in all and ``per_user`` of one."""

    __slots__ = ("_by_user", "_length", "_most", "_per_user")

    def __init__(self, most: int, per_user: int) -> None:
        self._most = most
        self._per_user = per_user
        self._by_user: OrderedDict[str, deque[bytes]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, user: str, key: bytes) -> bool:
        """False, with nothing kept, when there is no place."""
        own = self._by_user.get(user)
        if self._length >= self._most or (own is not None and len(own) >= self._per_user):
            return False
        if own is None:
            own = self._by_user[user] = deque()
        own.append(key)
        self._length += 1
        return True

    def pop(self) -> bytes | None:
        """The oldest of the user whose turn it is."""
        if not self._length:
            return None
        user, own = next(iter(self._by_user.items()))
        key = own.popleft()
        self._length -= 1
        if own:
            self._by_user.move_to_end(user)
        else:
            del self._by_user[user]
        return key
