"""Small programs with a known function, each in the text format of ``parse``."""

from slt_jax.programs.program import Program, parse


def detect_a() -> Program:
    """Say whether a word over {A, B} has an A: ends in ``acc`` if so, else in ``rej``; halts either way.

    Returns:
      Two states and three symbols: a code of 30 dimensions.

    When not to believe it: it needs as many steps as there are letters before and with the first A.

    Source: the function is the running example of Clift, Murfet and Wallbridge (2021), arXiv 2103.16080; the rules
    are this library's.

    >>> from slt_jax.programs.interpreter import run
    >>> run(detect_a(), "BBA", 4).state
    'acc'
    """
    return parse("""
        rej B -> rej B R
        rej A -> acc A S
    """)


def detect_a_running() -> Program:
    """Compute the function of ``detect_a``; once accepting, keep running right for ever.

    Returns:
      Two states and three symbols: a code of 30 dimensions.

    When not to believe it: with an A it never halts, by design; its output is settled all the same.

    Source: as ``detect_a``.

    >>> from slt_jax.programs.interpreter import run
    >>> run(detect_a_running(), "BAB", 9)
    Run(state='acc', tape='BAB', head=9, halted=False)
    """
    return parse("""
        rej B -> rej B R
        rej A -> acc A R
        acc B -> acc B R
        acc A -> acc A R
        acc _ -> acc _ R
    """)


def detect_a_overwriting() -> Program:
    """Compute the function of ``detect_a``; on accepting, step right, write A on whatever is there and halt.

    Returns:
      Two states and three symbols: a code of 30 dimensions.

    When not to believe it: it needs one step more than ``detect_a`` to halt.

    Source: as ``detect_a``.

    >>> from slt_jax.programs.interpreter import run
    >>> run(detect_a_overwriting(), "BAB", 9)
    Run(state='acc', tape='BAA', head=2, halted=True)
    """
    return parse("""
        rej B -> rej B R
        rej A -> acc A R
        acc B -> acc A S
        acc A -> acc A S
        acc _ -> acc A S
    """)


def parity() -> Program:
    """Say whether a word over {A, B} has an even or an odd number of A's; halts at the end of the word.

    Returns:
      Two states and three symbols: a code of 30 dimensions.

    When not to believe it: needs one step a letter.

    Source: a textbook automaton; the rules are this library's.

    >>> from slt_jax.programs.interpreter import run
    >>> run(parity(), "ABA", 4).state
    'even'
    """
    return parse("""
        even A -> odd A R
        even B -> even B R
        odd A -> even A R
        odd B -> odd B R
    """)


def binary_increment() -> Program:
    """Add one to a binary number, most significant digit first, on the tape; the state says whether it grew longer.

    Ends in ``grown`` if all digits were 1 (or there were none), else in ``done``.

    Returns:
      Four states and three symbols: a code of 84 dimensions.

    When not to believe it: needs up to ``2 len(word) + 2`` steps.

    Source: a textbook machine; the rules are this library's.

    >>> from slt_jax.programs.interpreter import run
    >>> run(binary_increment(), "1011", 10).tape
    '1100'
    """
    return parse("""
        seek 0 -> seek 0 R
        seek 1 -> seek 1 R
        seek _ -> carry _ L
        carry 1 -> carry 0 L
        carry 0 -> done 1 S
        carry _ -> grown 1 S
    """)


def palindrome() -> Program:
    """Say whether a word over {A, B} reads the same backwards: ends in ``yes`` or ``no``; erases as it compares.

    Returns:
      Eight states and three symbols: a code of 264 dimensions.

    When not to believe it: needs up to ``(n + 1)(n + 2)/2`` steps for ``n`` letters.

    Source: a textbook machine; the rules are this library's.

    >>> from slt_jax.programs.interpreter import run
    >>> run(palindrome(), "ABA", 10).state, run(palindrome(), "AAB", 10).state
    ('yes', 'no')
    """
    return parse("""
        start A -> seekA _ R
        start B -> seekB _ R
        start _ -> yes _ S
        seekA A -> seekA A R
        seekA B -> seekA B R
        seekA _ -> lastA _ L
        seekB A -> seekB A R
        seekB B -> seekB B R
        seekB _ -> lastB _ L
        lastA A -> back _ L
        lastA B -> no B S
        lastA _ -> yes _ S
        lastB A -> no A S
        lastB B -> back _ L
        lastB _ -> yes _ S
        back A -> back A L
        back B -> back B L
        back _ -> start _ R
    """)


def brackets() -> Program:
    """Say whether the round brackets of a word match: ends in ``yes`` or ``no``; crosses out matched pairs with X.

    Returns:
      Five states and four symbols: a code of 180 dimensions.

    When not to believe it: the steps grow as the square of the length; ``(n + 2)²`` are enough for ``n`` brackets.

    Source: a textbook machine; the rules are this library's.

    >>> from slt_jax.programs.interpreter import run
    >>> run(brackets(), "(())", 36).state, run(brackets(), "())(", 36).state
    ('yes', 'no')
    """
    return parse("""
        seek ( -> seek ( R
        seek X -> seek X R
        seek ) -> match X L
        seek _ -> end _ L
        match X -> match X L
        match ( -> seek X R
        match _ -> no _ S
        end X -> end X L
        end ( -> no ( S
        end _ -> yes _ S
    """)
