package main

// tenantBugs are those of tenants that a node does not know, or that are deleted.
var tenantBugs = []bug{
	{
		"take the data of a tenant that is not known for garbage", "node/replica/recordspace.go",
		"	if !isRecordKey(key) {\n		return false\n", "	if !isRecordKey(key) {\n		return s.tenants[tenantOf(key)] == nil\n", "node/replica", "^TestUnknownTenantsKeepTheirData$",
	},
	{
		"drop what comes for a tenant that is not known, and acknowledge it", "coord/peer.go",
		"		case verdict == fenceBehind:\n", "		case verdict == fenceBehind && t == nil:\n			f.reply(i, Reply{Status: StatusOK})\n		case verdict == fenceBehind:\n", "coord", "^TestUnknownTenantIsNotAcknowledged$",
	},
	{
		"have whoever asks for a deleted tenant catch up", "coord/peer.go",
		"	case !ok && s.Deleted(m.Tenant): // which nothing newer changes\n		return fenceDeleted, nil, false\n", "", "coord", "^TestDeletedTenantIsFinal$",
	},
	{
		"go on with an operation in another tenant that has the name by now", "coord/unit.go",
		"	if j.number != 0 && j.number != t.Number {\n", "	if j.number != 0 && j.number > t.Number {\n", "coord", "^TestTenantDeletedMeanwhile$",
	},
	{
		"go on with a scan by the class that the tenant had", "coord/scanpiece.go",
		"	s.ask.Class = u.Class\n", "", "coord", "^TestEverybodyCatchesUp$",
	},
	{
		"say that there is no such tenant though nobody was asked", "coord/unit.go",
		"	if !informed {\n", "	if false {\n", "coord", "^TestTenantNobodyWasAskedAbout$",
	},
	{
		"write of a tenant that was deleted, if that was let through before", "node/replica/replica.go",
		"	if s.gone(at.Tenant) {\n",
		"	if false {\n", "node/replica", "^TestWritesOfADeletedTenant$",
	},
	{
		"leave what is known of the class of a tenant that was deleted", "node/replica/tenantdrop.go",
		"		if seq, err = s.apply(b, true); err == nil {\n",
		"		if err == nil {\n", "node/replica", "^TestDropTenant$",
	},
}
