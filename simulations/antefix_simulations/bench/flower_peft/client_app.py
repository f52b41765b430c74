"""A client as in Flower's examples: the user of its partition."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from antefix_simulations.bench.flower_peft.training import PeftUsers

__all__ = ["app"]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One user."""
    config = context.run_config
    users = PeftUsers.from_config(config)
    shared = message.content.array_records["arrays"]["shared"].numpy()
    values, texts = users.train(int(context.node_config["partition-id"]), shared)
    content = RecordDict(
        {
            "arrays": ArrayRecord({"shared": Array(values)}),
            "metrics": MetricRecord({"num-examples": texts}),
        }
    )
    return Message(content=content, reply_to=message)
