-- two-sided sign test: probability of a split at least this uneven when both sides are equally good
--   exact while the smaller side has at most 100,000, with the normal distribution (and its half) beyond
create or replace macro m6.sign_test(won, lost) as
    case
        when won < 0 or lost < 0 or not isfinite(cast(won as double)) or not isfinite(cast(lost as double))
            then error('m6.sign_test got ' || won || ' and ' || lost || ', expected two counts of at least 0')
        when least(won, lost) > 100000
            then m6.normal_test(greatest(abs(won - lost) - 1.0, 0.0) / sqrt(cast(won as double) + lost))
        when won is not null and lost is not null then least(
            1.0,
            2 * list_sum(
                list_transform(
                    range(0, cast(least(won, lost, 100000) as bigint) + 1),
                    lambda n: exp(
                        lgamma(won + lost + 1.0) - lgamma(n + 1.0) - lgamma(won + lost - n + 1.0)
                        - (won + lost) * ln(2.0)
                    )
                )
            )
        )
    end;
comment on macro m6.sign_test is 'two-sided p-value that won and lost come from a fair coin; exact up to 100,000 on the smaller side';
