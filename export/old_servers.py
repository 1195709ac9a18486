"""A SavedModel that older model servers load, too.

TensorFlow 2.21 writes one operation and one attribute that those before do not know, and that change nothing:
`DisableCopyOnRead`, a hint for reading variables, and `debug_name` of `VarHandleOp`.
"""

import pathlib

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

DROPPED_OPERATION = "DisableCopyOnRead"
DROPPED_ATTRIBUTES = {"VarHandleOp": ("debug_name",)}


def make_readable(path: pathlib.Path) -> None:
    """Rewrites the file saved_model.pb without what older servers refuse."""
    model = SavedModel.FromString(path.read_bytes())
    for meta in model.meta_graphs:
        _without(meta.graph_def.node)
        for function in meta.graph_def.library.function:
            dropped = _without(function.node_def)
            for name in [name for name, node in function.control_ret.items() if node in dropped]:
                del function.control_ret[name]
                function.signature.control_output.remove(name)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _without(nodes: list[NodeDef]) -> set[str]:
    """Drops nodes and attributes from a list in place; returns the names of the nodes."""
    dropped = {node.name for node in nodes if node.op == DROPPED_OPERATION}
    kept = [node for node in nodes if node.name not in dropped]
    for node in kept:
        inputs = [name for name in node.input if name.removeprefix("^") not in dropped]
        del node.input[:]
        node.input.extend(inputs)
        for attribute in DROPPED_ATTRIBUTES.get(node.op, ()):
            node.attr.pop(attribute, None)
    copies = [NodeDef.FromString(node.SerializeToString()) for node in kept]
    del nodes[:]
    nodes.extend(copies)
    return dropped
