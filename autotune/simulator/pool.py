"""The KV pool: who holds how many of its tokens, and the prefix cache that lives in what nobody holds.

In: takes, gives and prefixes from the scheduler. Out: whether there is room. Pure state.
Invariant: private + cached <= capacity; locked prefixes are never evicted, the rest goes oldest first.
The cache is keyed by a request's prefix group instead of by tokens: a model of SGLang's radix tree that
knows whole prefixes and (as ballast that is evicted like them) finished requests, but no partial overlap.
"""

from collections import OrderedDict

from autotune.simulator.sequence import Sequence


class _Entry:
    """A cached prefix; `users` says how much of it each sequence in flight needs."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.locked = 0
        self.users: dict[Sequence, int] = {}


class KvPool:
    """Tokens of the pool: `private` to sequences, `cached` for reuse (of them `locked` while in use).

    `available` can be had: free tokens, and cached ones that nobody uses.
    """

    def __init__(self, capacity: int, *, caches: bool = True) -> None:
        self.capacity = capacity
        self.available = capacity
        self.private = 0
        self.cached = 0
        self.locked = 0
        self.evicted = 0
        self._caches = caches
        self._entries: OrderedDict[Sequence | int | None, _Entry] = OrderedDict()

    @property
    def used(self) -> int:
        """Tokens in use by sequences, as SGLang's `token usage` counts them."""
        return self.private + self.locked

    def cached_prefix(self, group: int | None) -> int:
        """Return how many tokens of a group's prefix are cached; None is no group."""
        entry = self._entries.get(group)
        return 0 if entry is None else entry.tokens

    def hit(self, sequence: Sequence) -> int:
        """Return how many tokens of the sequence's prompt are cached; at least one is always computed."""
        if sequence.prefix_group is None:
            return 0
        cached = min(self.cached_prefix(sequence.prefix_group), sequence.prefix_tokens)
        return min(cached, sequence.length - 1)

    def lock(self, sequence: Sequence) -> int:
        """Hold the sequence's cached prefix and return its tokens, 0 if there is none."""
        hit = self.hit(sequence)
        if hit > 0:
            self._use(sequence, self._entries[sequence.prefix_group], hit)
        return hit

    def unlock(self, sequence: Sequence) -> None:
        """Let go of the sequence's prefix; it stays cached until its place is needed."""
        if sequence.shared:
            entry = self._entries[sequence.prefix_group]
            if entry.users.pop(sequence) == entry.locked:
                self._relock(entry, max(entry.users.values(), default=0))
            sequence.shared = 0

    def take(self, sequence: Sequence, tokens: int) -> None:
        """Give the sequence private tokens, evicting what nobody uses; `tokens` must be available."""
        self.take_unowned(tokens)
        sequence.private += tokens

    def take_unowned(self, tokens: int) -> None:
        """Count tokens as private; the caller knows whose they are (one per running sequence and step)."""
        self.private += tokens
        self.available -= tokens
        if self.private + self.cached > self.capacity:
            self._evict_down_to(self.capacity - self.private)

    def give_back(self, sequence: Sequence) -> None:
        """Free everything that the sequence holds, uncached (it was retracted or aborted)."""
        self.private -= sequence.private
        self.available += sequence.private
        sequence.private = 0
        self.unlock(sequence)

    def share_prefix(self, sequence: Sequence) -> None:
        """Put the computed prefix into the cache and hold it there; a copy of a cached part is freed."""
        wanted, group = sequence.prefix_tokens, sequence.prefix_group
        if group is None or not self._caches or sequence.shared >= wanted:
            return
        entry = self._entries.setdefault(group, _Entry(0))
        growth = max(0, wanted - entry.tokens)
        entry.tokens += growth
        self.cached += growth
        moved = wanted - sequence.shared
        self.private -= moved
        self.available += moved
        sequence.private -= moved
        self._use(sequence, entry, wanted)

    def retire(self, sequence: Sequence) -> None:
        """Let a finished sequence go; its own tokens stay as the youngest that can be evicted."""
        tokens, sequence.private = sequence.private, 0
        self.private -= tokens
        self.available += tokens
        self.unlock(sequence)
        if self._caches and tokens > 0:
            self._entries[sequence] = _Entry(tokens)
            self.cached += tokens
        group = sequence.prefix_group
        if group is not None and group in self._entries:
            self._entries.move_to_end(group)

    def flush(self) -> None:
        """Empty the cache. Nothing may be locked."""
        self._entries.clear()
        self.cached = 0

    def _use(self, sequence: Sequence, entry: _Entry, tokens: int) -> None:
        self._entries.move_to_end(sequence.prefix_group)
        entry.users[sequence] = tokens
        sequence.shared = tokens
        if tokens > entry.locked:
            self._relock(entry, tokens)

    def _relock(self, entry: _Entry, locked: int) -> None:
        self.locked += locked - entry.locked
        self.available -= locked - entry.locked
        entry.locked = locked

    def _evict_down_to(self, tokens: int) -> None:
        """Evict the least recently used entries, or what nobody needs of them, until `tokens` are cached."""
        excess = self.cached - tokens
        emptied = []
        for key, entry in self._entries.items():
            if excess <= 0:
                break
            spare = entry.tokens - entry.locked
            entry.tokens = entry.locked
            excess -= spare
            self.cached -= spare
            self.evicted += spare
            if entry.tokens == 0:
                emptied.append(key)
        for key in emptied:
            del self._entries[key]
