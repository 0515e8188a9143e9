"""The paper's numbers and claims beside our results, as docs/paper.md shows them.

`numbers.py` holds what the paper published, `claims.py` what it says. `evidence.py` gathers the results of ours that
bear on it, `judges.py` decides the claims by them according to `rules.py`, and `page.py` writes it all down.
"""

from reproduction.evidence import Evidence, read_evidence
from reproduction.page import decided_claims, paper_page

__all__ = ["Evidence", "decided_claims", "paper_page", "read_evidence"]
