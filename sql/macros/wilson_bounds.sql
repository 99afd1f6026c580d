-- Wilson's score interval of a rate over n independent trials, at 95 %
create or replace macro m6.wilson_bounds(rate, trials) as struct_pack(
    low := greatest(
        0,
        (
            rate + 1.920729410347062e0 / trials
            - 1.959963984540054e0 * sqrt(rate * (1 - rate) / trials + 0.960364705173531e0 / (trials * trials))
        ) / (1 + 3.841458820694124e0 / trials)
    ),
    high := least(
        1,
        (
            rate + 1.920729410347062e0 / trials
            + 1.959963984540054e0 * sqrt(rate * (1 - rate) / trials + 0.960364705173531e0 / (trials * trials))
        ) / (1 + 3.841458820694124e0 / trials)
    )
);
comment on macro m6.wilson_bounds is 'Wilson interval of a rate at 95 %';
