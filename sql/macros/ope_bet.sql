-- log of the betting e-value that the mean of gain is above 0 (gain >= -1, scaled); alarm at ln(1 / alpha)
create or replace macro m6.ope_bet(gain) as
    ln(
        (
            exp(sum(ln(1 + 0.01 * gain))) + exp(sum(ln(1 + 0.03 * gain))) + exp(sum(ln(1 + 0.1 * gain)))
            + exp(sum(ln(1 + 0.3 * gain))) + exp(sum(ln(1 + 0.9 * gain)))
        ) / 5
    );
comment on macro m6.ope_bet is 'log e-value of a bet on a positive mean: aggregate over rows, valid at any time';
