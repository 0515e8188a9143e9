"""What a run looked like, as one page, and what several runs say together, as Markdown.

Everything here reads files that a run left behind and works without torch, so a report can be made again on any
machine, long after the run. Only pages need a drawing library, which takes half a second to load.
"""
