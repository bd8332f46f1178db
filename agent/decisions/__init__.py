"""Whether a brain's decisions are better than chance: fixed situations whose every option is measured."""
