-- two-sided exact sign test: probability of a split at least this uneven when both sides are equally good
create or replace macro m6.sign_test(won, lost) as
    case
        when won is not null and lost is not null then least(
            1.0,
            2 * list_sum(
                list_transform(
                    range(0, cast(least(won, lost) as bigint) + 1),
                    lambda n: exp(
                        lgamma(won + lost + 1.0) - lgamma(n + 1.0) - lgamma(won + lost - n + 1.0)
                        - (won + lost) * ln(2.0)
                    )
                )
            )
        )
    end;
comment on macro m6.sign_test is 'two-sided exact p-value that won and lost come from a fair coin';
