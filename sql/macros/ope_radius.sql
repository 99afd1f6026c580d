-- half-width of the one-sided asymptotic confidence sequence: mean - radius holds at every n at once
create or replace macro m6.ope_radius(n_rounds, deviation, miss_level, tightest) as
    deviation * sqrt(
        2 * (n_rounds * (2 * ln(1 / (2 * miss_level)) + ln(1 + 2 * ln(1 / (2 * miss_level)))) / tightest + 1)
        / (n_rounds ^ 2 * (2 * ln(1 / (2 * miss_level)) + ln(1 + 2 * ln(1 / (2 * miss_level)))) / tightest)
        * ln(
            1 + sqrt(
                n_rounds * (2 * ln(1 / (2 * miss_level)) + ln(1 + 2 * ln(1 / (2 * miss_level)))) / tightest + 1
            ) / (2 * miss_level)
        )
    );
comment on macro m6.ope_radius is 'half-width of a confidence sequence that may be looked at after every period';
