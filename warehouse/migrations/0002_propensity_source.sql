-- Impressions that were not drawn by m6.serve have no logged propensity: theirs is estimated, and says so.
alter table m6.impressions add column propensity_source varchar default 'logged';
comment on column m6.impressions.propensity_source is 'logged: the probability of the draw; estimated: from the log, see m6.impressions_from_log';
