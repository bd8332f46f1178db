"""Every setting of a run: in panels, checked once; and the arms, who decides."""
