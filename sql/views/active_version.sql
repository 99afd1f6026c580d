-- one row: the versions in force and the moment of the build
select
    a.model_version,
    a.policy_version,
    m.as_of
from m6.active as a
left join m6.models as m on a.model_version = m.model_version
