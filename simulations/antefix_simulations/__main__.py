"""`python -m antefix_simulations` is `antefix-sim`."""

from antefix_simulations.cli import main

if __name__ == "__main__":
    main()
