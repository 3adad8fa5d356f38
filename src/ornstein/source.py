"""Where a method comes from: what `ornstein cite` prints and the documentation shows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A publication. Systems write it as literals only, so that it can be read without importing them."""

    title: str
    authors: str
    year: int
    venue: str
    arxiv: str = ""
    repository: str = ""

    def bibtex(self, key: str) -> str:
        """A BibTeX entry with the given key."""
        fields = {"title": f"{{{self.title}}}", "author": self.authors, "year": str(self.year), "booktitle": self.venue}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        if self.repository:
            fields["howpublished"] = rf"\url{{{self.repository}}}"
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@inproceedings{{{key},\n{body}\n}}"
