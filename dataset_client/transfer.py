"""The bytes of an archive, fetched in pieces by several connections at a time, each with a thread of its own.

Whatever breaks is tried again from where it broke, with fewer connections; what comes out wrong is fetched again, only
the records that are wrong if the file can tell (`verify`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from dataset_client.backoff import CommonRetries
from dataset_client.errors import (
    DatasetClientError,
    IntegrityError,
    ServerBusyError,
    ServerUnreachableError,
)
from dataset_client.http import Body, Http
from dataset_client.plan import Piece, cut
from dataset_client.settings import Settings
from dataset_client.source import Source
from dataset_client.tempo import Tempo, first_connections, is_full, portion
from dataset_client.workfile import WorkFile

#: How often wrong bytes of one file are fetched again before all of it is, and how often the same ones: a line that
#: errs may hit them twice.
_MENDINGS, _SAME_MENDINGS = 8, 2
#: Pieces among which the next one is chosen.
_CHOICE = 64
#: Seconds between two looks at how fast it goes.
_WINDOW_S = 0.5
#: Bytes that are read at once of a new answer, and the seconds that a read shall take: until then nobody hears of them.
_FIRST_READ, _READ_S = 1 << 16, (0.05, 0.2)
#: How many such reads, and seconds at the rate it had for a while, a request must lack at least for half of what it
#: lacks to be taken over: a dropped connection is worth something, too.
_WORTH_TAKING, _WORTH_S = 16, 1.0


@dataclass(frozen=True)
class Pace:
    """In which portions an archive is fetched, in bytes: its ``tail``, pieces by one request each of ``piece`` at the
    most (`portion` of them), no more than ``block`` of them in one read; and by how many ``connections`` at the most,
    ``begin`` at first: by `first_connections` if that is None.
    """

    tail: int = 1 << 16
    piece: int = 1 << 30
    block: int = 1 << 20
    connections: int = 16
    begin: int | None = None


@dataclass(eq=False)
class _Asked:
    """A piece whose bytes were asked for at ``began``, and have come up to ``position``, ``read`` at once. Others may
    take its end over.
    """

    piece: Piece
    position: int
    read: int
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        """How many bytes are to come."""
        return self.piece.stop - self.position

    def seconds_left(self) -> float:
        """How long these take at the rate of those that came; none where that has not been seen for long enough."""
        elapsed = time.monotonic() - self.began
        return self.left * elapsed / max(self.position - self.piece.start, 1) if elapsed >= _WINDOW_S else 0.0

    def took(self, seconds: float, most: int) -> None:
        """A read took so long: the next one shall take neither long nor next to no time."""
        if seconds < _READ_S[0]:
            self.read = min(2 * self.read, most)
        elif seconds > _READ_S[1]:
            self.read = max(self.read // 2, 1)


class Transfer:
    """One archive's files, fetched from ``source``. `run` blocks, and `fail` ends it from another thread.

    ``on_bytes`` hears how many bytes of all files are here, from any thread, but from one at a time; ``on_file`` of
    each file once it is complete and right, from any thread. What the latter raises ends `run`.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        files: Mapping[str, WorkFile],
        pace: Pace,
        on_bytes: Callable[[int], None],
        on_file: Callable[[WorkFile], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._files = files
        self._pace = pace
        self._on_bytes = on_bytes
        self._on_file = on_file
        self._changed = threading.Condition()
        self._telling = threading.Lock()
        begin = pace.begin or first_connections(source.answered_within_s)
        self._tempo = Tempo(pace.connections, min(begin, pace.connections))
        self._tries = CommonRetries(settings.retry)
        self._pieces = deque[Piece]()
        self._to_resume = deque[WorkFile]()
        self._unverified = set(files)
        self._mended: dict[str, list[list[tuple[int, int]]]] = {}
        self._fetched_again = set[str]()
        self._total = sum(file.wanted.bytes for file in files.values())
        self._here = sum(file.arrived() for file in files.values())
        self._failure: BaseException | None = None
        self._is_over = False
        self._workers = self._busy = 0
        self._asked = set[_Asked]()
        self._bodies = set[Body]()

    def run(self, pieces: Iterable[Piece]) -> None:
        """Fetch ``pieces``, and see that every file is complete and right.

        Raises `IntegrityError` for a file that is wrong again and again, `RevisionReplacedError`, `NoRangesError`,
        `CacheError`, or what ended the last attempt; and what `fail` was called with.
        """
        self._pieces.extend(pieces)
        begun = [self._files[name] for name in sorted(self._unverified)]
        self._to_resume.extend(file for file in begun if file.arrived() or not file.missing())
        self._tries.budget = 64 + 4 * ((self._total - self._here) >> 26)  # 4 more for each 64 MiB that are missing
        with self._changed:
            try:
                self._wait()
            finally:
                self._is_over = True
                self._changed.notify_all()
                while self._busy:  # who still waits for an answer will find that nobody wants it
                    for body in self._bodies:
                        body.interrupt()
                    self._changed.wait(_WINDOW_S)
        for file in self._files.values():
            file.close()
        if self._failure is not None:
            raise self._failure
        self._on_bytes(self._here)

    def _wait(self) -> None:
        """Until all is here, or cannot be had; meanwhile, as many connections as that is fastest with."""
        measured, before = time.monotonic(), self._here
        while self._unverified and self._failure is None:
            self._start_workers()
            self._changed.wait(_WINDOW_S)
            now = time.monotonic()
            if now - measured >= _WINDOW_S:
                if self._here > before and len(self._asked) >= self._tempo.connections:
                    trips = [trip for body in self._bodies if (trip := body.round_trip())]
                    self._tempo.measured((self._here - before) / (now - measured), is_full=is_full(trips))
                measured, before = now, self._here

    def fail(self, error: BaseException) -> None:
        """End `run` with ``error``, if it has not ended by itself."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _start_workers(self) -> None:
        resuming = self._busy - len(self._bodies) + len(self._to_resume)
        if not self._pieces and len(self._asked) + resuming < self._tempo.connections:
            self._take_over()
        tasks = len(self._pieces) + len(self._to_resume) + len(self._asked)
        while self._workers < min(self._tempo.connections, max(tasks, 1)):
            try:
                threading.Thread(target=self._work, name="dataset-client-transfer", daemon=True).start()
            except RuntimeError as error:  # the process may have no more threads: those that there are will do
                if not self._workers:
                    self._failure = self._failure or error
                self._tempo.bears_only(self._workers)
                return
            self._workers += 1

    # -- what each worker does, in its thread

    def _work(self) -> None:
        try:
            with Http(self._settings) as http:
                self._work_with(http, memoryview(bytearray(self._pace.block)))
        except BaseException as error:
            self.fail(error)

    def _work_with(self, http: Http, block: memoryview) -> None:
        last: Piece | None = None
        rate = 0.0
        while (task := self._next(last, rate)) is not None:
            last = None
            if isinstance(task, WorkFile):
                self._resume(task)
                continue
            try:
                if self._fetch(http, task, block):
                    last, rate = task.piece, (task.piece.stop - task.piece.start) / (time.monotonic() - task.began)
            finally:
                with self._changed:
                    self._asked.discard(task)
                    self._changed.notify_all()

    def _next(self, last: Piece | None, rate: float) -> WorkFile | _Asked | None:
        """What to do next, waiting for it if need be, for a worker that has done ``last`` and brings ``rate`` bytes a
        second; None if this worker is one too many, or all is done.
        """
        with self._changed:
            while not self._is_over and self._failure is None and self._workers <= self._tempo.connections:
                pause = self._tries.not_before - time.monotonic()
                if self._to_resume:
                    self._busy += 1
                    return self._to_resume.popleft()
                if self._pieces and pause <= 0:
                    before = last.stop - last.start if last else 0
                    left, tempo = self._total - self._here, self._tempo
                    size = portion(before, rate, left, tempo.connections, is_settled=tempo.is_settled)
                    piece = self._choose(last, size)
                    asked = _Asked(piece, piece.start, min(_FIRST_READ, self._pace.block))
                    self._asked.add(asked)
                    return asked
                self._changed.wait(pause if self._pieces else None)
            self._workers -= 1
            return None

    def _take_over(self) -> None:
        """Have about half of what is to come of the request that takes longest asked for anew, by others: from the
        beginning of a file, if one is near, as files are hashed in their order. Who made it drops its connection there.
        """
        worth = [asked for asked in self._asked if asked.left >= _WORTH_TAKING * asked.read]
        asked = max(worth, key=_Asked.seconds_left, default=None)
        if asked is None or asked.seconds_left() < _WORTH_S:
            return
        middle, most = asked.piece.stop - asked.left // 2, asked.left // 4
        starts = [target.at for target in asked.piece.targets if abs(target.at - middle) < most]
        border = min(starts, key=lambda start: abs(start - middle), default=middle)
        if rest := asked.piece.rest(border):
            asked.piece = asked.piece.head(border)
            self._pieces.append(rest)
            self._changed.notify_all()

    def _choose(self, last: Piece | None, size: int) -> Piece:
        """About ``size`` bytes of the piece that follows the worker's last one, or of the first one of a file that
        nobody is at, if such are near: files are hashed in their order, each by one thread at a time.
        """
        taken = {asked.piece.targets[0].file for asked in self._asked}
        chosen = None
        for index, piece in enumerate(islice(self._pieces, _CHOICE)):
            if last is not None and piece.start == last.stop:
                chosen = index
                break
            if chosen is None and piece.targets[0].file not in taken:
                chosen = index
        piece = self._pieces[chosen or 0]
        border = piece.start + size
        if piece.stop - border > size // 2 and (rest := piece.rest(border)):
            self._pieces[chosen or 0] = rest
            self._changed.notify_all()  # there is work for others
            return piece.head(border)
        del self._pieces[chosen or 0]
        return piece

    def _resume(self, file: WorkFile) -> None:
        try:
            if file.resume():
                self._check(file)
        finally:
            self._leave(None)

    def _fetch(self, http: Http, asked: _Asked, block: memoryview) -> bool:
        """Fetch a piece; what is left of it when that fails in a way that may pass waits for its next try. Whether all
        of it came.
        """
        try:
            with self._source.get(http, asked.piece.start, asked.piece.stop) as body:
                if not self._enter(body):
                    return False
                try:
                    self._read(body, asked, block)
                finally:
                    self._leave(body)
            if asked.position < asked.piece.stop:
                raise ServerUnreachableError(f"{self._source.url} ended in the middle of an answer", transient=True)
        except DatasetClientError as error:
            if not error.transient:
                raise
            self._again(asked, error)
            return False
        return True

    def _read(self, body: Body, asked: _Asked, block: memoryview) -> None:
        while asked.position < asked.piece.stop:
            began = time.monotonic()
            count = body.readinto(block[: min(asked.read, asked.piece.stop - asked.position)])
            if self._failure is not None or not count:
                return
            asked.took(time.monotonic() - began, len(block))
            self.store(asked.piece, asked.position, block[:count])
            with self._changed:
                asked.position += count

    def store(self, piece: Piece, position: int, block: memoryview) -> None:
        """Write a block of the archive, which begins at ``position``, to the files that it is of."""
        end = position + len(block)
        for target in piece.targets:
            start, stop = max(target.at, position), min(target.at + target.size, end)
            if start >= stop:
                continue
            file = self._files[target.file]
            is_complete = file.write(target.offset + start - target.at, block[start - position : stop - position])
            self._count(stop - start)
            if is_complete:
                self._check(file)

    def _check(self, file: WorkFile) -> None:
        """Verify a complete file; what is wrong of it is fetched again, at last all of it. Raises `IntegrityError`."""
        name = file.wanted.file
        if file.verify():
            self._on_file(file)
            with self._changed:
                self._unverified.discard(name)
                self._changed.notify_all()
            return
        earlier = self._mended.setdefault(name, [])
        missing = file.forget_damage(all_of_it=False)
        is_in_vain = missing in ([], [(0, file.wanted.bytes)]) or earlier.count(missing) >= _SAME_MENDINGS
        if is_in_vain or len(earlier) >= _MENDINGS:
            if name in self._fetched_again:
                file.forget_damage(all_of_it=True)  # nobody shall go on from this
                raise IntegrityError(
                    f"{self._source.url} gives {name} with sha256 {file.sha256}; announced was {file.wanted.sha256}"
                )
            self._fetched_again.add(name)
            missing = file.forget_damage(all_of_it=True)
        earlier.append(missing)
        self._count(-sum(stop - start for start, stop in missing))
        with self._changed:
            self._pieces.extendleft(reversed(cut([(file.wanted, missing)], self._pace.piece)))
            self._to_resume.append(file)  # hashed from its start while the rest comes
            self._changed.notify_all()

    def _again(self, asked: _Asked, error: DatasetClientError) -> None:
        """Have the rest of a piece tried again; raises ``error`` if that is pointless."""
        with self._changed:
            self._asked.discard(asked)
            if rest := asked.piece.rest(asked.position):
                self._pieces.appendleft(rest)
            if isinstance(error, ServerBusyError):
                self._tempo.refused()
            else:
                self._tempo.broke()
            self._tries.failed(error, asked.began, self._here)
            self._changed.notify_all()

    def _count(self, size: int) -> None:
        with self._changed:
            self._here += size
        if self._telling.acquire(blocking=False):  # one at a time, and nobody waits for who shows it
            try:
                self._on_bytes(self._here)
            finally:
                self._telling.release()

    def _enter(self, body: Body) -> bool:
        """Whether what was asked for is still wanted; from here on `run` does not end before `_leave`."""
        with self._changed:
            if self._is_over or self._failure is not None:
                return False
            self._busy += 1
            self._bodies.add(body)
            return True

    def _leave(self, body: Body | None) -> None:
        with self._changed:
            self._busy -= 1
            if body is not None:
                self._bodies.discard(body)
            self._changed.notify_all()
