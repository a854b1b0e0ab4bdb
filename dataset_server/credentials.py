"""What must not be shown: the user names, tokens and passwords that addresses carry."""

import re

_CREDENTIALS = re.compile(r"(?<=://)\S*@(?!\{version\})")


def masked(text: str) -> str:
    """``text`` with ``***@`` in place of all that stands before an ``@`` in each address.

    A password may hold any character, so the last ``@`` counts, other than that of ``@{version}`` in a source: rather
    too much is masked than too little.
    """
    return _CREDENTIALS.sub("***@", text)
