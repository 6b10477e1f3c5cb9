"""Evidence bundles: everything a published number rests on in one file, and its check on any machine.

:func:`~testbench_dagster.stages.dispute.bundle.write_bundle` writes one from an installation's stores;
:func:`~testbench_dagster.stages.dispute.rescore.rescore` reads one without them: it checks the hashes,
classifies every answer and computes every score and window again. Described for suppliers in
docs/disputes.md.

Belongs here: the form of a bundle, what it holds, its bounds, and how a comparison is told. Does not: reading
or writing an installation's stores (`stages/dispute` does).
"""
