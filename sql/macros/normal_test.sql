-- two-sided p-value of a standard normal z: erfc(|z| / sqrt(2)), Chebyshev fit of Press et al., Numerical Recipes, 6.2
create or replace macro m6.normal_test(z) as
    case
        when z is not null then least(
            1.0,
            1.0 / (1.0 + abs(z) / (2.0 * sqrt(2.0)))
            * exp(
                -z * z / 2.0
                + list_reduce(
                    [
                        0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807,
                        -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223
                    ],
                    lambda total, term: total / (1.0 + abs(z) / (2.0 * sqrt(2.0))) + term
                )
            )
        )
    end;
comment on macro m6.normal_test is 'two-sided p-value of a standard normal z, good to 1e-7 of itself';
