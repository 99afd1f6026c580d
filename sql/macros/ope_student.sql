-- one-sided 95 % quantile of Student's t (Abramowitz and Stegun 26.7.5); good to 1e-9 from 100 degrees of freedom
create or replace macro m6.ope_student(freedom) as
    1.6448536269514722e0
    + (1.6448536269514722e0 ^ 3 + 1.6448536269514722e0) / (4.0 * freedom)
    + (5 * 1.6448536269514722e0 ^ 5 + 16 * 1.6448536269514722e0 ^ 3 + 3 * 1.6448536269514722e0) / (96.0 * freedom ^ 2)
    + (
        3 * 1.6448536269514722e0 ^ 7 + 19 * 1.6448536269514722e0 ^ 5
        + 17 * 1.6448536269514722e0 ^ 3 - 15 * 1.6448536269514722e0
    ) / (384.0 * freedom ^ 3)
    + (
        79 * 1.6448536269514722e0 ^ 9 + 776 * 1.6448536269514722e0 ^ 7 + 1482 * 1.6448536269514722e0 ^ 5
        - 1920 * 1.6448536269514722e0 ^ 3 - 945 * 1.6448536269514722e0
    ) / (92160.0 * freedom ^ 4);
comment on macro m6.ope_student is 'one-sided 95 % quantile of Student''s t distribution';
