"""``python -m newfound.cli``."""

from newfound.cli.app import main

main()
