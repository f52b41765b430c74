"""A server as in Flower's examples: FedAvg over everybody."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from antefix_simulations.bench.flower_peft.training import PeftUsers

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One round."""
    config = context.run_config
    users = PeftUsers.from_config(config)
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=users.count,
        min_evaluate_nodes=users.count,
        min_available_nodes=users.count,
    )
    arrays = ArrayRecord({"shared": Array(users.start)})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]))
