"""Arithmetic modulo primes: tells 2^100000 - 2 from 2^100000, which 50 digits cannot."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from rewards import nodes as n
from rewards.exact import Budget, rational
from rewards.limits import POWER_BITS, Undefined
from rewards.nodes import Node

PRIMES = ((1 << 61) - 1, (1 << 89) - 1)


class NotModular(Exception):
    """The tree is no rational function with integer powers."""


def residue(node: Node, values: Mapping[str, int], prime: int, budget: Budget) -> int:
    """The value modulo `prime`. Raises NotModular, and Undefined where a divisor is 0 modulo `prime`."""
    budget.visit()
    match node:
        case n.Num(value, _):
            return value.numerator * inverse(value.denominator, prime) % prime
        case n.Sym(name) if name in values:
            return values[name]
        case n.Add(terms):
            return sum(residue(term, values, prime, budget) for term in terms) % prime
        case n.Mul(factors):
            product = 1
            for factor in factors:
                product = product * residue(factor, values, prime, budget) % prime
            return product
        case n.Pow(base, exponent):
            power = rational(exponent, {}, budget)
            if power is None or power.denominator != 1 or power.numerator.bit_length() > POWER_BITS:
                raise NotModular
            bottom = residue(base, values, prime, budget)
            if power < 0:
                bottom = inverse(bottom, prime)
            return pow(bottom, abs(power.numerator) % (prime - 1) if bottom else abs(power.numerator), prime)
        case n.Func("percent", (arg,)):
            return residue(arg, values, prime, budget) * inverse(100, prime) % prime
    raise NotModular


def inverse(value: int, prime: int) -> int:
    if value % prime == 0:
        raise Undefined("divisor")
    return pow(value, -1, prime)


def differ(left: Node, right: Node, budget: Budget) -> bool:
    """True if both are rational functions that differ modulo a prime; False proves nothing."""
    names = n.symbols(left) | n.symbols(right)
    for prime in PRIMES:
        values = {name: 2 + zlib.crc32(name.encode()) * 2_654_435_761 % (prime - 2) for name in names}
        try:
            if residue(left, values, prime, budget) != residue(right, values, prime, budget):
                return True
        except (NotModular, Undefined):
            return False
    return False
