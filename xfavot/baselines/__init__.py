"""The compared systems of the paper's tables, trained, opened and scored as the method is.

Each is written anew from what its authors published, one file a system: AdaIN-VC, AdaIN-CVC,
Fragment-VC, SGSIM and Vclip. :class:`xfavot.baselines.system.System` is what a system has to be;
`training` trains any of them and opens its checkpoints for the evaluation.
"""
