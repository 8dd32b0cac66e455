"""The proof that no recording is lost: faults from seeds, and a checker that trusts nobody.

`python -m proof` (with `tests` and `src` on the path; `make proof` sees to it) starts a broker, an
embedded Vault behind a proxy that misbehaves, and `vault-ml run` as subprocesses; it kills, cuts
off and holds up whatever the seed says, and then looks at the queues and at the Vault only.

`plan` draws the faults, `machine` carries them out, `history` is what was seen, `checker` judges
it, `planted` holds bugs that the checker must find, `report` writes PROOF.md.
"""
