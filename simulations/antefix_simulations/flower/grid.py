"""Has cohorts done by the nodes of a Flower grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from antefix_simulations.flower.messages import result_in, task_of
from antefix_simulations.run.task import Result, Task, WorkerFailed
from antefix_simulations.settings import RunSettings

__all__ = ["OnGrid"]

_AHEAD = 2
_POLL_S = 0.05
_TRIES = 2


class OnGrid:
    """Keeps every node busy: a task under way and one that waits. What failed is tried once more."""

    def __init__(self, grid: Grid, settings: RunSettings, out: Path) -> None:
        """Wait for nodes."""
        self._grid, self._settings, self._out = (
            grid,
            settings.model_dump_json(by_alias=True),
            str(out.resolve()),
        )
        while not (nodes := list(grid.get_node_ids())):
            time.sleep(_POLL_S)
        self._nodes = sorted(nodes)

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Of all tasks, as they come.

        Raises:
            WorkerFailed: twice, the same task.
        """
        waiting = [(task, 1) for task in reversed(tasks)]
        under_way: dict[str, tuple[Task, int, int]] = {}
        load = dict.fromkeys(self._nodes, 0)
        while waiting or under_way:
            while waiting and min(load.values()) < _AHEAD:
                task, tries = waiting.pop()
                node = min(self._nodes, key=lambda name: (load[name], name))
                load[node] += 1
                under_way[self._send(task, node)] = (task, tries, node)
            for reply in self._grid.pull_messages(list(under_way)):
                task, tries, node = under_way.pop(reply.metadata.reply_to_message_id)
                load[node] -= 1
                if not reply.has_error():
                    yield task, result_in(reply.content)
                elif tries < _TRIES:
                    waiting.append((task, tries + 1))
                else:
                    raise WorkerFailed(
                        f"{task.name} failed {tries} times: {_first_line(reply)}", "see the log above"
                    )
            time.sleep(_POLL_S)

    def _send(self, task: Task, node: int) -> str:
        content = task_of(task, self._out, self._settings)
        message = Message(content=content, dst_node_id=node, message_type=MessageType.TRAIN)
        (sent,) = self._grid.push_messages([message])
        return str(sent)


def _first_line(reply: Message) -> str:
    return (reply.error.reason or "no reason").strip().splitlines()[-1][:300]
