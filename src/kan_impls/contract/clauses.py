"""The contract: all of its clauses, in the order in which they are tested."""

from __future__ import annotations

from kan_impls.contract import habits, numerics

CLAUSES = (
    numerics.can_be_called,  # the first: without it no other can be met
    numerics.keeps_the_dtype,
    numerics.derivatives_are_finite_differences,
    numerics.gradients_add_up_over_rows,
    numerics.float32_agrees,
    numerics.bfloat16_agrees,
    numerics.any_leading_shape_is_a_batch,
    numerics.empty_batch,
    numerics.strides_do_not_matter,
    numerics.is_finite_far_outside,
    numerics.non_finite_input_spoils_its_row,
    numerics.saves_no_more_than_stated,
    habits.unwanted_gradients_change_nothing,
    habits.forward_mode,
    habits.trace_is_the_layer,
    habits.compiles_for_any_batch,
    habits.exports_for_any_batch,
    habits.autocast_keeps_dtypes,
    habits.copies_are_the_same_layer,
    habits.repeats_to_the_bit,
)
