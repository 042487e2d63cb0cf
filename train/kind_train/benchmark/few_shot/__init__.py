"""The few-shot suite: a ViT whose matrices are diverted, beside the ordinary one, on tasks of a few photos a class."""
