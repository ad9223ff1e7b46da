package rest

import "testing"

func TestChangeTenants(t *testing.T) {
	f := newFixture(t)
	for _, x := range [][3]string{{"PUT", "/v1/tenants/shop/replication-factor", `{"replication_factor":5}`}, {"DELETE", "/v1/tenants/shop", ""}} {
		if code, m := f.do(t, x[0], x[1], x[2]); code != 403 || m["error_code"] != "FORBIDDEN" || f.asked != "" {
			t.Errorf("from another machine: %d %v", code, m)
		}
	}
	f.near = true
	code, m := f.do(t, "PUT", "/v1/tenants/shop/replication-factor", `{"replication_factor":5}`)
	if code != 200 || f.asked != "replicate shop 5" || m["tenant_id"] != "shop" || m["old_replication_factor"] != 3.0 || m["new_replication_factor"] != 5.0 || m["migration_id"] != "7e" || m["updated_at"] != "2023-11-14T22:13:20Z" {
		t.Errorf("%d %v, asked for %s", code, m, f.asked)
	}
	f.asked = ""
	for _, body := range []string{``, `{"replication_factor":-1}`, `{"replication_factor":1.5}`, `{"factor":1}`, `{"replication_factor":"5"}`} {
		if code, m := f.do(t, "PUT", "/v1/tenants/shop/replication-factor", body); code != 400 || f.asked != "" {
			t.Errorf("%s: %d %v, asked for %q", body, code, m, f.asked)
		}
	}
	if code, m := f.do(t, "DELETE", "/v1/tenants/shop", ""); code != 200 || f.asked != "delete shop" || m["tenant_id"] != "shop" || m["status"] != "success" {
		t.Errorf("delete: %d %v, asked for %s", code, m, f.asked)
	}
	if code, m := f.do(t, "DELETE", "/v1/tenants/none", ""); code != 404 || m["error_code"] != "TENANT_NOT_FOUND" {
		t.Errorf("delete what there is not: %d %v", code, m)
	}
}
