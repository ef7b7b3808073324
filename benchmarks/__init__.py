"""How fast a meta-step of EBMM is beside the same formula in other forms and frameworks: ``make bench``."""
