"""Which rewrites an exported graph goes through: those of onnxscript that keep what the model computes.

onnxscript's own selection compares constants with a tolerance. It drops `x + c` where c is at most 1e-8, and `x * c`
where c is within 1e-5 of 1: the epsilon that keeps a division from 0/0 is lost. No rule here compares a number with a
tolerance, and none moves the bounds of a clip; what is left ONNX Runtime simplifies when it opens the file, by exact
comparison. Why these: docs/adr/017-rewrites-one-by-one.md.
"""

from collections.abc import Mapping
from typing import Any, Final

ROUNDS: Final = 2
"""What one rule leaves, another may take up."""

RULES: Final = (
    # shapes and types only
    "no_op_cast_rule",
    "no_op_expand_rule",
    "no_op_transpose_rule",
    "reshape_reshape_rule",
    "squeeze_reshape_1d_rule",
    "transpose_transpose_rule",
    "unsqueeze_unsqueeze_rule",
    "slice_split_rule",
    "materialize_reshape_shape_rule",
    "cast_constant_of_shape_rule",
    "cast_constant_of_shape_without_value_rule",
    "collapse_slice_rule",
    "collapse_slice2_rule",
    "one_reshape_matmul_reshape_rule",
    "two_reshapes_matmul_reshape_rule",
    # what does nothing when a model is used
    "dropout_inference_rule",
    "dropout_zero_rule",
    "remove_optional_bias_from_conv_rule",
    "remove_optional_bias_from_conv_transpose_rule",
    "remove_optional_bias_from_gemm_rule",
    # layers into their neighbours
    "fuse_pad_into_conv_rule",
    "normalize_pad_format_conv_rule",
    "fuse_batchnorm_into_conv_rule",
    "fuse_batchnorm_into_conv_transpose_rule",
    "fuse_batchnorm_into_gemm_rule",
)
"""In `onnxscript.rewriter.rules.common`; a release without one of them goes without."""

_LAST: Final[Mapping[str, Mapping[str, Any]]] = {
    "RemoveUnusedNodesPass": {},
    "RemoveUnusedFunctionsPass": {},
    "RemoveUnusedOpsetsPass": {},
    "LiftConstantsToInitializersPass": {"lift_all_constants": True, "size_limit": 0},
    "LiftSubgraphInitializersToMainGraphPass": {},
    "DeduplicateInitializersPass": {},
    "CommonSubexpressionEliminationPass": {},
    "OutputFixPass": {},
    "NameFixPass": {},
}
"""In `onnx_ir.passes.common`, with their settings; a release without one of them goes without."""


def simplify(model: Any) -> None:
    """Rewrite an `onnx_ir.Model` in place: constants computed, batch norm folded, what has no effect left out."""
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer, rewriter

    passes.InlinePass()(model)
    rules = _rules()
    for _ in range(ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True)
        if rules:
            rewriter.rewrite(model, pattern_rewrite_rules=rules)
    for name, settings in _LAST.items():
        known = getattr(passes, name, None)
        if known is not None:
            known(**settings)(model)


def _rules() -> list[Any]:
    """The rules that this onnxscript has; without any the graph is larger, and ONNX Runtime folds what it can."""
    try:
        from onnxscript.rewriter.rules import common
    except ImportError:
        return []
    return [rule for name in RULES if (rule := getattr(common, name, None)) is not None]
