"""What a run says while it trains: a line of metrics every so many steps, and the same to the person who waits."""

from typing import Protocol, runtime_checkable

import jax

from rfjax.training.logs import Metrics
from rfjax.training.measuring import Work
from rfjax.training.recovery import Diverged


@runtime_checkable
class Display(Protocol):
    """What a run tells the person who waits."""

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None: ...

    def say(self, activity: str) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Lines:
    """The lines of metrics of a session, and the look for trouble that goes with them."""

    def __init__(self, work: Work, metrics: Metrics, display: Display, start: int, earlier: float) -> None:
        """start: step, and earlier: seconds of training, that the session goes on from."""
        self._work, self._metrics, self._display = work, metrics, display
        self._earlier = earlier - work.clock.spent("training", "data")
        self._last = (start, self.spent())

    def spent(self) -> float:
        """Seconds of training over all sessions."""
        return self._earlier + self._work.clock.spent("training", "data")

    def look(self, step: int, measured: dict[str, jax.Array], now: bool) -> None:
        """Every `log_every` steps, writes a line; then, and where asked to, looks for a loss that went wrong.

        Raises:
            Diverged: if there was one.
        """
        training = self._work.config.training
        line = step % training.log_every == 0 or step == training.steps
        if not (line or now):
            return
        values = {name: float(value) for name, value in jax.device_get(measured).items()}
        bad, loss = int(values.pop("bad_step")), values.pop("bad_loss")
        if line:
            before, spent = self._last, self.spent()
            rate = (step - before[0]) * training.batch / max(spent - before[1], 1e-9)
            progress = self._work.progress(step, spent)
            self._metrics.write("train", step, **progress, **values, examples_per_second=rate)
            self._display.update(step, values["loss"], rate, rate * self._work.size.train_flops)
            self._last = (step, self.spent())
        if bad:
            raise Diverged(bad, loss)
