"""The paper's numbers and claims compared with our results, for docs/paper.md.

`numbers.py` has the paper's figures and `claims.py` its claims. `evidence.py` gathers our results, `judges.py` decides
the claims according to `rules.py`, and `page.py` writes the page.
"""

from reproduction.evidence import Evidence, read_evidence
from reproduction.page import decided_claims, paper_page

__all__ = ["Evidence", "decided_claims", "paper_page", "read_evidence"]
